"""Generated messages and stubs of `mondrian.v1`; do not edit."""
