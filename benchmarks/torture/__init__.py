"""Faults by the thousand: kills, disks that fail, files that are damaged or made to do harm, environments that break."""
