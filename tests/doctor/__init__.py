"""Tests of the doctor: what it finds on machines that are well, and on others."""
