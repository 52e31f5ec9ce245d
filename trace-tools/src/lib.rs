//! Reads Orrery traces on the host.
