"""What docs/without_python.md shows: its commands are ones, and its C compiles."""

import re
import shlex
from pathlib import Path

import numpy as np

from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export import c, write
from sb3_rlx2.export.__main__ import make_parser
from tests.compilers import STRICT, command, put, run
from tests.exported import agent, by_hand, exported

PAGE = (Path(__file__).parent.parent / "docs/without_python.md").read_text()
STUBS = """
extern "C" { int analogRead(int); void analogWrite(int, int); void delay(int); }
enum { A0 = 14 };
struct { void begin(long) {} void println(const char *) {} } Serial;
"""
# What the other projects' headers declare of what the page uses.
CRAZYFLIE = """
#include <stdbool.h>
#include <stdint.h>
typedef struct { float x, y, z; } three;
typedef struct { int controlMode; float normalizedForces[4]; } control_t;
typedef struct { three position; } setpoint_t;
typedef struct { three gyro; } sensorData_t;
typedef struct { three position, velocity; struct { float x, y, z, w; } attitudeQuaternion; } state_t;
typedef uint32_t stabilizerStep_t;
enum { controlModeForce, RATE_100_HZ = 100 };
#define RATE_DO_EXECUTE(rate, tick) ((tick) % (1000 / (rate)) == 0)
void controllerOutOfTreeInit(void);
bool controllerOutOfTreeTest(void);
void controllerOutOfTree(control_t *, const setpoint_t *, const sensorData_t *, const state_t *, stabilizerStep_t);
"""
ROS = """
#ifndef ROS
#define ROS
#include <stdbool.h>
#include <stddef.h>
typedef struct { int own; } rcl_allocator_t, rcl_context_t, rcl_node_t, rcl_publisher_t, rcl_subscription_t, rclc_executor_t;
typedef struct { rcl_context_t context; } rclc_support_t;
typedef struct { float *data; size_t size, capacity; } rosidl_runtime_c__float__Sequence;
typedef struct { rosidl_runtime_c__float__Sequence data; } std_msgs__msg__Float32MultiArray;
extern const int float_array;
#define ROSIDL_GET_MSG_TYPE_SUPPORT(package, kind, name) &float_array
enum { ON_NEW_DATA };
rcl_allocator_t rcl_get_default_allocator(void);
int rcl_publish(const rcl_publisher_t *, const void *, void *);
int rclc_support_init(rclc_support_t *, int, const char *const *, rcl_allocator_t *);
int rclc_node_init_default(rcl_node_t *, const char *, const char *, rclc_support_t *);
int rclc_publisher_init_default(rcl_publisher_t *, const rcl_node_t *, const int *, const char *);
int rclc_subscription_init_default(rcl_subscription_t *, rcl_node_t *, const int *, const char *);
int rclc_executor_init(rclc_executor_t *, rcl_context_t *, size_t, const rcl_allocator_t *);
int rclc_executor_add_subscription(rclc_executor_t *, rcl_subscription_t *, void *, void (*)(const void *), int);
int rclc_executor_spin(rclc_executor_t *);
bool rosidl_runtime_c__float__Sequence__init(rosidl_runtime_c__float__Sequence *, size_t);
#endif
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_commands_are_commands():
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 4
    for program, name, *arguments in commands:
        assert (program, name) == ("rlx2", "export")
        make_parser().parse_args(arguments)


def test_control_loop_compiles(tmp_path):
    (tmp_path / "loop.c").write_text(blocks("c")[0])
    put(tmp_path, c.source(by_hand()))
    run([*command("gcc"), "-c", "loop.c", "policy.c"], tmp_path)


def test_controller_compiles(tmp_path):
    (tmp_path / "controller.h").write_text(CRAZYFLIE)
    (tmp_path / "controller.c").write_text(blocks("c")[1])
    header = c.source(by_hand())["policy.h"].replace(b"POLICY_OBSERVATIONS 2\n", b"POLICY_OBSERVATIONS 13\n")
    (tmp_path / "policy.h").write_bytes(header)
    run([*command("gcc"), "-c", "controller.c"], tmp_path)


def test_node_compiles(tmp_path):
    (node,) = (block for block in blocks("c") if "rclc" in block)
    for name in re.findall(r"#include <(\w+/.*)>", node):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROS)
    (tmp_path / "node.c").write_text(node)
    put(tmp_path, rlx2_file.readers())
    run([*command("gcc"), "-I.", "-c", "node.c", "rlx2_reader.c"], tmp_path)


def test_sketch_compiles(tmp_path):
    (tmp_path / "sketch.cpp").write_text(STUBS + blocks("cpp")[0])
    put(tmp_path, c.source(by_hand()))
    command("gcc, C++")
    run(["g++", *STRICT, "-c", "sketch.cpp"], tmp_path)


def test_script_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, vecnormalize = agent("RLx2TD3")
    exec(blocks("python")[0], {"model": model, "vecnormalize": vecnormalize})
    assert (tmp_path / "hopper.h").exists()


def test_reader_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    policy = exported("RLx2TD3", "fp16")
    write(policy, tmp_path / "hopper.rlx2", "bin")
    names = {"observation": np.zeros(11)}
    exec(blocks("python")[1], names)
    np.testing.assert_array_equal(names["action"], policy(np.zeros(11)))
    assert set(rlx2_file.readers()) <= {path.name for path in tmp_path.iterdir()}
