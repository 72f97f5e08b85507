//! Nothing: the integration tests stand in the folders beside this file, by kind.
