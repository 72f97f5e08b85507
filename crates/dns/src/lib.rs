//! The zones of the networks, and forwarding of everything else.
