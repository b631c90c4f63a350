/* Mutates a .rlx2 file and gives it to the reader, in memory that ends where the file does: ./fuzz FILE MUTATIONS SEED */
#include "rlx2_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

static uint32_t crc32(const uint8_t *p, uint32_t size)
{
    static uint32_t table[256];
    uint32_t crc = 0xffffffffu;
    if (!table[1]) {
        for (uint32_t k = 0; k < 256; k++) {
            table[k] = k;
            for (int bit = 0; bit < 8; bit++) {
                table[k] = table[k] >> 1 ^ (table[k] & 1 ? 0xedb88320u : 0);
            }
        }
    }
    while (size--) {
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
    }
    return ~crc;
}

static void mutate(uint8_t *file, uint32_t *size)
{
    for (uint32_t changes = 1 + draw(4); changes > 0; changes--) {
        /* Half of the changes hit the header and its neighbours, where the sizes are. */
        uint32_t at = draw(2) ? draw(*size) : draw(*size < 128 ? *size : 128);
        switch (draw(5)) {
        case 0:
            file[at] = (uint8_t)draw(256);
            break;
        case 1:
            file[at] ^= (uint8_t)(1 << draw(8));
            break;
        case 2:
            file[at] = draw(2) ? 0 : 255;
            break;
        case 3:
            memset(file + at, (int)draw(256), draw(*size - at));
            break;
        default:
            *size = 1 + draw(*size);
        }
    }
}

static float *act(const uint8_t *file, uint32_t size, const float *seen, uint32_t *actions)
{
    const uint32_t floats = rlx2_floats(file, size);
    if (floats == 0) {
        return NULL;
    }
    const uint32_t inputs = rlx2_observations(file);
    *actions = rlx2_actions(file);
    float *scratch = malloc((floats + inputs + *actions) * sizeof(float));
    float *observation = calloc(inputs, sizeof(float));
    float *action = malloc(*actions * sizeof(float));
    for (uint32_t k = 0; k < inputs && k < 16; k++) {
        observation[k] = seen[k];
    }
    rlx2_act(file, observation, action, scratch);
    (void)rlx2_self_test(file, 0.0f, scratch);
    free(scratch);
    free(observation);
    return action;
}

int main(int argc, char **argv)
{
    const float seen[16] = {0.1f, -0.5f, 2.0f, -3.0f, 0.7f, 0.0f, 1.0f, -1.0f};
    uint8_t original[1 << 16];
    uint32_t actions, others, accepted = 0, equal = 0;
    FILE *stream = fopen(argv[1], "rb");
    const uint32_t size = (uint32_t)fread(original, 1, sizeof original, stream);
    fclose(stream);
    state = (uint32_t)atoi(argv[3]);
    float *const expected = act(original, size, seen, &actions);
    if (argc != 4 || expected == NULL) {
        return 2;
    }
    for (int number = 0; number < atoi(argv[2]); number++) {
        uint8_t changed[sizeof original];
        uint32_t length = size;
        const int repaired = number % 2;
        memcpy(changed, original, size);
        mutate(changed, &length);
        if (repaired && length > 16) { /* past the checksum, so that all the other checks are reached */
            const uint32_t crc = crc32(changed, length - 4);
            memcpy(changed, "RLX2\1\0\0", 8);
            memcpy(changed + 8, &length, 4);
            memcpy(changed + length - 4, &crc, 4);
            const uint32_t again = crc32(changed, length - 4);
            memcpy(changed + length - 4, &again, 4);
        }
        uint8_t *const file = malloc(length);
        memcpy(file, changed, length);
        float *const action = act(file, length, seen, &others);
        if (action != NULL) {
            const int same = others == actions && memcmp(action, expected, actions * sizeof(float)) == 0;
            accepted++;
            equal += (uint32_t)same;
            if (!repaired && !same) {
                return 3;
            }
        }
        free(action);
        free(file);
    }
    free(expected);
    printf("%u %u\n", accepted, equal);
    return 0;
}
