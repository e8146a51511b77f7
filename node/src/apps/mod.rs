//! The dialects that an application is written in, and the built-in one; on `server/` alone.

pub mod relay;
