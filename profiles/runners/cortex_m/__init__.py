"""What building for and emulating a Cortex-M needs: flags, machines, start-up code, linker script."""
