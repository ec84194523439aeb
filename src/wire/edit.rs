//! Stored responses without their IPv6 addresses.
