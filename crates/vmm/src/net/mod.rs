//! Network cards: where their taps come from, and who may pull their cables.
//!
//! ```text
//! --net nat:NAME  → netd's port socket → tap, events: link, MTU  ([`session`])
//! --tap-fd N      → a descriptor that our parent has opened
//! ```

pub mod backend;
pub mod session;

pub use backend::{NetError, Nic, NicConfig, Source};
pub use session::Session;
