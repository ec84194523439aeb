//! The numbers IANA gives names to: types, classes, opcodes, response codes, extended errors.
//!
//! Any number is a value, known or not; only printing knows the difference (RFC 3597 section 5 for types and classes).
//!
//! Read first: RFC 6895, RFC 8914 section 5.2, the IANA registry "Domain Name System (DNS) Parameters".

use std::fmt;
use std::str::FromStr;

/// Declares a number's type, its constants, and the mnemonics they print as.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident($octets:ty), otherwise $generic:literal;
     $($constant:ident = $number:literal $mnemonic:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $octets);

        impl $name {
            $(
                #[doc = concat!("`", $mnemonic, "`, number ", stringify!($number), ".")]
                pub const $constant: Self = Self($number);
            )+

            /// What the number is called, if it has a name.
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($mnemonic),)+
                    _ => None,
                }
            }

            /// Every number that has a name, with that name.
            pub const NAMED: &[(Self, &str)] = &[$((Self($number), $mnemonic)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(mnemonic) => f.pad(mnemonic),
                    None => write!(f, concat!($generic, "{}"), self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

codes! {
    /// A record's type, or a question's QTYPE (RFC 1035 section 3.2.2).
    Type(u16), otherwise "TYPE";
    A = 1 "A",
    NS = 2 "NS",
    MD = 3 "MD",
    MF = 4 "MF",
    CNAME = 5 "CNAME",
    SOA = 6 "SOA",
    MB = 7 "MB",
    MG = 8 "MG",
    MR = 9 "MR",
    NULL = 10 "NULL",
    WKS = 11 "WKS",
    PTR = 12 "PTR",
    HINFO = 13 "HINFO",
    MINFO = 14 "MINFO",
    MX = 15 "MX",
    TXT = 16 "TXT",
    RP = 17 "RP",
    AFSDB = 18 "AFSDB",
    X25 = 19 "X25",
    ISDN = 20 "ISDN",
    RT = 21 "RT",
    NSAP = 22 "NSAP",
    NSAP_PTR = 23 "NSAP-PTR",
    SIG = 24 "SIG",
    KEY = 25 "KEY",
    PX = 26 "PX",
    GPOS = 27 "GPOS",
    AAAA = 28 "AAAA",
    LOC = 29 "LOC",
    NXT = 30 "NXT",
    SRV = 33 "SRV",
    NAPTR = 35 "NAPTR",
    KX = 36 "KX",
    CERT = 37 "CERT",
    A6 = 38 "A6",
    DNAME = 39 "DNAME",
    OPT = 41 "OPT",
    APL = 42 "APL",
    DS = 43 "DS",
    SSHFP = 44 "SSHFP",
    IPSECKEY = 45 "IPSECKEY",
    RRSIG = 46 "RRSIG",
    NSEC = 47 "NSEC",
    DNSKEY = 48 "DNSKEY",
    DHCID = 49 "DHCID",
    NSEC3 = 50 "NSEC3",
    NSEC3PARAM = 51 "NSEC3PARAM",
    TLSA = 52 "TLSA",
    SMIMEA = 53 "SMIMEA",
    HIP = 55 "HIP",
    CDS = 59 "CDS",
    CDNSKEY = 60 "CDNSKEY",
    OPENPGPKEY = 61 "OPENPGPKEY",
    CSYNC = 62 "CSYNC",
    ZONEMD = 63 "ZONEMD",
    SVCB = 64 "SVCB",
    HTTPS = 65 "HTTPS",
    DSYNC = 66 "DSYNC",
    SPF = 99 "SPF",
    NID = 104 "NID",
    L32 = 105 "L32",
    L64 = 106 "L64",
    LP = 107 "LP",
    EUI48 = 108 "EUI48",
    EUI64 = 109 "EUI64",
    NXNAME = 128 "NXNAME",
    TKEY = 249 "TKEY",
    TSIG = 250 "TSIG",
    IXFR = 251 "IXFR",
    AXFR = 252 "AXFR",
    MAILB = 253 "MAILB",
    MAILA = 254 "MAILA",
    ANY = 255 "ANY",
    URI = 256 "URI",
    CAA = 257 "CAA",
    AVC = 258 "AVC",
    AMTRELAY = 260 "AMTRELAY",
    RESINFO = 261 "RESINFO",
    WALLET = 262 "WALLET",
    TA = 32768 "TA",
    DLV = 32769 "DLV",
}

codes! {
    /// A record's class, or a question's QCLASS (RFC 1035 section 3.2.4).
    Class(u16), otherwise "CLASS";
    IN = 1 "IN",
    CH = 3 "CH",
    HS = 4 "HS",
    NONE = 254 "NONE",
    ANY = 255 "ANY",
}

codes! {
    /// What a message asks for: the four bits behind QR (RFC 1035 section 4.1.1).
    Opcode(u8), otherwise "OPCODE";
    QUERY = 0 "QUERY",
    IQUERY = 1 "IQUERY",
    STATUS = 2 "STATUS",
    NOTIFY = 4 "NOTIFY",
    UPDATE = 5 "UPDATE",
    DSO = 6 "DSO",
}

codes! {
    /// How a question ended: 12 bits, of which the header holds the lower 4 (RFC 6891 section 6.1.3).
    Rcode(u16), otherwise "RCODE";
    NOERROR = 0 "NOERROR",
    FORMERR = 1 "FORMERR",
    SERVFAIL = 2 "SERVFAIL",
    NXDOMAIN = 3 "NXDOMAIN",
    NOTIMP = 4 "NOTIMP",
    REFUSED = 5 "REFUSED",
    YXDOMAIN = 6 "YXDOMAIN",
    YXRRSET = 7 "YXRRSET",
    NXRRSET = 8 "NXRRSET",
    NOTAUTH = 9 "NOTAUTH",
    NOTZONE = 10 "NOTZONE",
    DSOTYPENI = 11 "DSOTYPENI",
    BADVERS = 16 "BADVERS",
    BADKEY = 17 "BADKEY",
    BADTIME = 18 "BADTIME",
    BADMODE = 19 "BADMODE",
    BADNAME = 20 "BADNAME",
    BADALG = 21 "BADALG",
    BADTRUNC = 22 "BADTRUNC",
    BADCOOKIE = 23 "BADCOOKIE",
}

codes! {
    /// An extended error's INFO-CODE: why an answer is what it is (RFC 8914).
    Ede(u16), otherwise "EDE";
    OTHER = 0 "Other",
    UNSUPPORTED_DNSKEY_ALGORITHM = 1 "Unsupported DNSKEY Algorithm",
    UNSUPPORTED_DS_DIGEST = 2 "Unsupported DS Digest Type",
    STALE_ANSWER = 3 "Stale Answer",
    FORGED_ANSWER = 4 "Forged Answer",
    DNSSEC_INDETERMINATE = 5 "DNSSEC Indeterminate",
    DNSSEC_BOGUS = 6 "DNSSEC Bogus",
    SIGNATURE_EXPIRED = 7 "Signature Expired",
    SIGNATURE_NOT_YET_VALID = 8 "Signature Not Yet Valid",
    DNSKEY_MISSING = 9 "DNSKEY Missing",
    RRSIGS_MISSING = 10 "RRSIGs Missing",
    NO_ZONE_KEY_BIT = 11 "No Zone Key Bit Set",
    NSEC_MISSING = 12 "NSEC Missing",
    CACHED_ERROR = 13 "Cached Error",
    NOT_READY = 14 "Not Ready",
    BLOCKED = 15 "Blocked",
    CENSORED = 16 "Censored",
    FILTERED = 17 "Filtered",
    PROHIBITED = 18 "Prohibited",
    STALE_NXDOMAIN = 19 "Stale NXDomain Answer",
    NOT_AUTHORITATIVE = 20 "Not Authoritative",
    NOT_SUPPORTED = 21 "Not Supported",
    NO_REACHABLE_AUTHORITY = 22 "No Reachable Authority",
    NETWORK_ERROR = 23 "Network Error",
    INVALID_DATA = 24 "Invalid Data",
    SIGNATURE_EXPIRED_BEFORE_VALID = 25 "Signature Expired before Valid",
    TOO_EARLY = 26 "Too Early",
    UNSUPPORTED_NSEC3_ITERATIONS = 27 "Unsupported NSEC3 Iterations Value",
    POLICY = 28 "Unable to conform to policy",
    SYNTHESIZED = 29 "Synthesized",
    INVALID_QUERY_TYPE = 30 "Invalid Query Type",
}

// === impl Type ===

impl Type {
    /// Whether the number lies where no records exist: OPT and the range of meta types and QTYPEs (RFC 6895 section 3.1).
    ///
    /// [`Type::ANY`] is in that range.
    pub const fn is_meta(self) -> bool {
        matches!(self.0, 128..=255) || self.0 == Self::OPT.0
    }
}

impl FromStr for Type {
    type Err = UnknownType;

    /// Reads a mnemonic or the `TYPE65280` form, in any case (RFC 3597 section 5).
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        if let Some((known, _)) = Self::NAMED.iter().find(|(_, mnemonic)| mnemonic.eq_ignore_ascii_case(text)) {
            return Ok(*known);
        }
        let (prefix, digits) = text.split_at_checked("TYPE".len()).ok_or(UnknownType)?;
        if !prefix.eq_ignore_ascii_case("TYPE") || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(UnknownType);
        }
        digits.parse().map(Self).map_err(|_| UnknownType)
    }
}

/// The text names no record type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownType;

impl fmt::Display for UnknownType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a record type; write a mnemonic such as AAAA, or TYPE and a number up to 65535")
    }
}

impl std::error::Error for UnknownType {}

// === impl Rcode ===

impl Rcode {
    /// The four bits that stand in the header.
    pub const fn low(self) -> u8 {
        (self.0 & 0x0f) as u8
    }

    /// The eight bits that stand in an OPT record (RFC 6891 section 6.1.3).
    pub const fn high(self) -> u8 {
        (self.0 >> 4) as u8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_numbers_print_as_iana_names_them() {
        assert_eq!(Type::HTTPS.to_string(), "HTTPS");
        assert_eq!(Class::CH.to_string(), "CH");
        assert_eq!(Rcode::BADVERS.to_string(), "BADVERS");
        assert_eq!(Opcode::UPDATE.to_string(), "UPDATE");
        assert_eq!(Ede::STALE_ANSWER.to_string(), "Stale Answer");
    }

    #[test]
    fn unknown_numbers_print_in_the_generic_form() {
        assert_eq!(Type(65280).to_string(), "TYPE65280");
        assert_eq!(Class(7).to_string(), "CLASS7");
        assert_eq!(Rcode(4095).to_string(), "RCODE4095");
        assert_eq!(Opcode(15).to_string(), "OPCODE15");
        assert_eq!(Ede(49152).to_string(), "EDE49152");
    }

    #[test]
    fn type_is_read_in_any_case() {
        assert_eq!("aaaa".parse(), Ok(Type::AAAA));
        assert_eq!("nsap-ptr".parse(), Ok(Type::NSAP_PTR));
        assert_eq!("type65280".parse(), Ok(Type(65280)));
        assert_eq!("TYPE1".parse(), Ok(Type::A));
    }

    #[test]
    fn text_that_is_no_type_is_rejected() {
        for text in ["", "AA", "TYPE", "TYPE65536", "TYPE+1", "TYPE-1", "TYPE1x", "тип1", "1"] {
            assert_eq!(text.parse::<Type>(), Err(UnknownType), "{text}");
        }
    }

    #[test]
    fn meta_types_are_those_no_record_has() {
        for meta in [Type::OPT, Type::TKEY, Type::TSIG, Type::IXFR, Type::AXFR, Type::MAILA, Type::MAILB, Type::ANY] {
            assert!(meta.is_meta(), "{meta}");
        }
        for data in [Type::A, Type::SIG, Type::HTTPS, Type(127), Type(256), Type(65280)] {
            assert!(!data.is_meta(), "{data}");
        }
    }

    #[test]
    fn response_code_is_split_over_header_and_opt() {
        assert_eq!((Rcode::BADVERS.high(), Rcode::BADVERS.low()), (1, 0));
        assert_eq!((Rcode::BADCOOKIE.high(), Rcode::BADCOOKIE.low()), (1, 7));
        assert_eq!((Rcode::NXDOMAIN.high(), Rcode::NXDOMAIN.low()), (0, 3));
    }

    proptest! {
        #[test]
        fn every_type_reads_back_as_printed(number: u16) {
            prop_assert_eq!(Type(number).to_string().parse(), Ok(Type(number)));
        }
    }
}
