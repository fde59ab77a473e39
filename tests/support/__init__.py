"""Devices that this machine does not have, and what runs on them: shared by the tests of devices and dtypes."""
