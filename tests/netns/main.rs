//! Integration tests: netns.
