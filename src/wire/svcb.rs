//! The parameters of SVCB and HTTPS records (RFC 9460).
