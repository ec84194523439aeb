//! The node plane: everything we put on the host, and nothing else does.

pub mod nft;
