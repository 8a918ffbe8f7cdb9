"""A backend for hqc: one C99 source file and its header, for microcontrollers."""
