"""Videos in and out: one video type, reading, writing and contact sheets."""
