//! The EDNS of a client's query (RFC 6891).
