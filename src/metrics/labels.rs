//! Every label value there is. What is not listed here cannot become a series, whatever arrives from the network.

use std::net::IpAddr;

use super::cells::Label;
use crate::wire::{Rcode, Transport, Type};

/// Declares closed sets of label values, each value once.
macro_rules! labels {
    ($(
        $(#[$about:meta])*
        $set:ident [$($name:literal),+] { $($(#[$note:meta])* $member:ident = [$($value:literal),+],)+ }
    )+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $set { $($(#[$note])* $member,)+ }

        impl $set {
            /// How many members the set has.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the first label, as it appears in a scrape.
            pub fn label(self) -> &'static str {
                self.values()[0]
            }

            /// The member whose first label has this value.
            pub fn of_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.label() == label)
            }
        }

        impl Label for $set {
            const NAMES: &'static [&'static str] = &[$($name),+];
            const ALL: &'static [Self] = &[$(Self::$member),+];

            fn index(self) -> usize {
                self as usize
            }

            fn values(self) -> &'static [&'static str] {
                match self { $(Self::$member => &[$($value),+],)+ }
            }
        }
    )+};
}

labels! {
    /// How a query reached us.
    Arrival ["transport", "family"] {
        /// Over UDP, from an IPv4 address.
        UdpIpv4 = ["udp", "ipv4"],
        /// Over UDP, from an IPv6 address.
        UdpIpv6 = ["udp", "ipv6"],
        /// Over TCP, from an IPv4 address.
        TcpIpv4 = ["tcp", "ipv4"],
        /// Over TCP, from an IPv6 address.
        TcpIpv6 = ["tcp", "ipv6"],
    }

    /// The rcode of a reply, by IANA's mnemonic.
    Reply ["rcode"] {
        /// 0
        NoError = ["NOERROR"],
        /// 1
        FormErr = ["FORMERR"],
        /// 2
        ServFail = ["SERVFAIL"],
        /// 3
        NxDomain = ["NXDOMAIN"],
        /// 4
        NotImp = ["NOTIMP"],
        /// 5
        Refused = ["REFUSED"],
        /// 6
        YxDomain = ["YXDOMAIN"],
        /// 7
        YxRrset = ["YXRRSET"],
        /// 8
        NxRrset = ["NXRRSET"],
        /// 9
        NotAuth = ["NOTAUTH"],
        /// 10
        NotZone = ["NOTZONE"],
        /// 11
        DsoTypeNi = ["DSOTYPENI"],
        /// 16
        BadVers = ["BADVERS"],
        /// 17
        BadKey = ["BADKEY"],
        /// 18
        BadTime = ["BADTIME"],
        /// 19
        BadMode = ["BADMODE"],
        /// 20
        BadName = ["BADNAME"],
        /// 21
        BadAlg = ["BADALG"],
        /// 22
        BadTrunc = ["BADTRUNC"],
        /// 23
        BadCookie = ["BADCOOKIE"],
        /// All others.
        Other = ["other"],
    }

    /// What a question found.
    Lookup ["result"] {
        /// A remembered failure (RFC 9520).
        FailureCached = ["failure_cached"],
        /// An answer within its lifetime.
        Fresh = ["fresh"],
        /// A zone that is answered here.
        Local = ["local"],
        /// Nothing; it took off.
        Miss = ["miss"],
        /// A flight under way.
        Parked = ["parked"],
        /// An answer past its lifetime (RFC 8767).
        Stale = ["stale"],
    }

    /// Why a query got no reply.
    Drop ["reason"] {
        /// The source may not ask.
        Acl = ["acl"],
        /// It had waited while the worker did not run for seconds: a datagram, or a connection its client has closed.
        Aged = ["aged"],
        /// The source port is one no client uses, 0 or that of a service that would answer back.
        BadPort = ["bad_port"],
        /// The source has too many questions waiting.
        ClientLimit = ["client_limit"],
        /// The answer came later than anyone waits for it.
        Late = ["late"],
        /// Too broken to reply to.
        Malformed = ["malformed"],
        /// Too many questions waiting, from all.
        Overload = ["overload"],
        /// A response sent to a server (QR=1).
        Response = ["response"],
        /// The kernel did not take the reply.
        SendFailed = ["send_failed"],
        /// Less than a header.
        Short = ["short"],
        /// Too many wait for the same answer.
        TooManyWaiters = ["too_many_waiters"],
    }

    /// Why a query was answered with an error at once: the labels of [`Refusal`](crate::wire::Refusal) that have an
    /// rcode, and what is refused for reasons of ours.
    Refused ["reason"] {
        /// A record of the additional section cannot be read.
        Additional = ["additional"],
        /// The class is neither IN nor NONE.
        Class = ["class"],
        /// The class is NONE.
        ClassNone = ["class_none"],
        /// A COOKIE option of impossible length.
        Cookie = ["cookie"],
        /// Records in the answer or authority section.
        ForeignSection = ["foreign_section"],
        /// A tcp-keepalive option with a timeout.
        Keepalive = ["keepalive"],
        /// Octets behind the last record.
        LeftOver = ["left_over"],
        /// RD=0 and nothing at hand.
        NonRecursive = ["non_recursive"],
        /// Not a standard query.
        Opcode = ["opcode"],
        /// Two OPT records, one with an owner, or one whose options cannot be read.
        Opt = ["opt"],
        /// Anything else.
        Other = ["other"],
        /// The zone says so.
        Policy = ["policy"],
        /// The question cannot be read.
        Question = ["question"],
        /// Not exactly one question.
        QuestionCount = ["question_count"],
        /// A TSIG that is not the last record.
        Tsig = ["tsig"],
        /// A type nobody may ask for.
        TypeInvalid = ["type_invalid"],
        /// A transfer, or another type that is no data.
        TypeMeta = ["type_meta"],
        /// EDNS of a version above 0.
        Version = ["version"],
    }

    /// How a question to a server ended.
    Exchange ["outcome"] {
        /// NOERROR or NXDOMAIN.
        Answer = ["answer"],
        /// An rcode other than NOERROR, NXDOMAIN and SERVFAIL.
        Failure = ["failure"],
        /// Octets that are no DNS response; over UDP the wait goes on.
        Malformed = ["malformed"],
        /// Right place, wrong ID, question or letters; the wait goes on.
        NearMiss = ["near_miss"],
        /// No socket for it: descriptors or ports used up.
        NoSocket = ["no_socket"],
        /// ICMP said that nobody listens, or TCP was reset.
        RefusedIcmp = ["refused_icmp"],
        /// SERVFAIL.
        Servfail = ["servfail"],
        /// The connection ended before the answer.
        StreamClosed = ["stream_closed"],
        /// Nothing in time.
        Timeout = ["timeout"],
        /// TC=1 over UDP; asked again over TCP.
        Truncated = ["truncated"],
    }

    /// What kind of answer was stored.
    Stored ["kind"] {
        /// Records.
        Answer = ["answer"],
        /// A failure (RFC 9520).
        Failure = ["failure"],
        /// NOERROR without records of the type.
        NoData = ["nodata"],
        /// NXDOMAIN.
        NxDomain = ["nxdomain"],
    }

    /// Why a response was not stored.
    NotStored ["reason"] {
        /// A negative answer without SOA has no lifetime (RFC 2308 section 5).
        NegativeWithoutSoa = ["negative_without_soa"],
        /// Anything else.
        Other = ["other"],
        /// Our own limits made the failure; it says nothing about the name.
        OwnFailure = ["own_failure"],
        /// A referral.
        Referral = ["referral"],
        /// Larger than an entry may be.
        TooLarge = ["too_large"],
        /// TC=1.
        Truncated = ["truncated"],
        /// Lifetime 0.
        TtlZero = ["ttl_zero"],
    }

    /// Why a TCP connection was closed.
    Closed ["reason"] {
        /// The client was done.
        Client = ["client"],
        /// Reset, or another failure of the socket.
        Error = ["error"],
        /// Nothing asked for too long.
        Idle = ["idle"],
        /// Too many connections, from all or from one source.
        Limit = ["limit"],
        /// What came is no DNS.
        Malformed = ["malformed"],
        /// We stop.
        Shutdown = ["shutdown"],
        /// A message that took too long to arrive.
        SlowReader = ["slow_message"],
        /// Replies that the client did not fetch.
        SlowWriter = ["slow_client"],
    }

    /// What took the time.
    Outcome ["outcome"] {
        /// Answered with a failure, remembered or of this moment.
        Failure = ["failure"],
        /// Answered from the cache.
        Hit = ["hit"],
        /// Answered here, by a zone.
        Local = ["local"],
        /// Answered by a server.
        Miss = ["miss"],
        /// Answered with an error at once, for the query's own sake.
        Refused = ["refused"],
        /// Answered from the cache, past the lifetime.
        Stale = ["stale"],
    }

    /// The type a question asks for; the types the incumbent tells apart.
    Asked ["type"] {
        /// 1
        A = ["A"],
        /// 28
        Aaaa = ["AAAA"],
        /// 255
        Any = ["ANY"],
        /// 252
        Axfr = ["AXFR"],
        /// 5
        Cname = ["CNAME"],
        /// 48
        Dnskey = ["DNSKEY"],
        /// 43
        Ds = ["DS"],
        /// 65
        Https = ["HTTPS"],
        /// 251
        Ixfr = ["IXFR"],
        /// 15
        Mx = ["MX"],
        /// 2
        Ns = ["NS"],
        /// 47
        Nsec = ["NSEC"],
        /// 50
        Nsec3 = ["NSEC3"],
        /// All others.
        Other = ["other"],
        /// 12
        Ptr = ["PTR"],
        /// 46
        Rrsig = ["RRSIG"],
        /// 6
        Soa = ["SOA"],
        /// 33
        Srv = ["SRV"],
        /// 16
        Txt = ["TXT"],
    }

    /// What a server said, by rcode.
    Said ["rcode"] {
        /// 0
        NoError = ["NOERROR"],
        /// 3
        NxDomain = ["NXDOMAIN"],
        /// All others.
        Other = ["other"],
        /// 5
        Refused = ["REFUSED"],
        /// 2
        ServFail = ["SERVFAIL"],
    }

    /// The sign of an answer in the cache, in the incumbent's words.
    Sign ["type"] {
        /// NXDOMAIN, NODATA, a failure.
        Denial = ["denial"],
        /// Records.
        Success = ["success"],
    }

    /// What became of a snapshot of the cache.
    Snapshot ["result"] {
        /// Torn, corrupt or no snapshot; the cache started empty.
        Ignored = ["ignored"],
        /// Read at the start.
        Restored = ["restored"],
        /// The disk or the file system refused it; the one before stays.
        WriteFailed = ["write_failed"],
        /// Written.
        Written = ["written"],
    }

    /// What carried a question to a server.
    Socket ["transport", "use"] {
        /// A connection made for it.
        TcpOpened = ["tcp", "opened"],
        /// A connection used before.
        TcpReused = ["tcp", "reused"],
        /// A socket opened for it.
        UdpOpened = ["udp", "opened"],
        /// A socket used before.
        UdpReused = ["udp", "reused"],
    }

    /// What became of a changed configuration.
    Reload ["result"] {
        /// In force.
        Accepted = ["accepted"],
        /// Flawed; the plan before it stays.
        Rejected = ["rejected"],
    }
}

// === impl Arrival ===

impl Arrival {
    /// The way a query took. An IPv4-mapped source counts as IPv4.
    pub fn of(transport: Transport, source: IpAddr) -> Self {
        match (transport, source.to_canonical()) {
            (Transport::Udp, IpAddr::V4(_)) => Self::UdpIpv4,
            (Transport::Udp, IpAddr::V6(_)) => Self::UdpIpv6,
            (Transport::Tcp, IpAddr::V4(_)) => Self::TcpIpv4,
            (Transport::Tcp, IpAddr::V6(_)) => Self::TcpIpv6,
        }
    }
}

// === impl Reply ===

impl Reply {
    /// The series of an rcode, its extension included (RFC 6891 section 6.1.3).
    pub fn of(rcode: u16) -> Self {
        // 12 to 15 are unassigned, so the list skips from 11 to 16.
        let at = match rcode {
            0..=11 => usize::from(rcode),
            16..=23 => usize::from(rcode - 4),
            _ => return Self::Other,
        };
        Self::ALL[at]
    }
}

// === impl Asked ===

impl Asked {
    /// The series of a type.
    #[inline]
    pub fn of(qtype: Type) -> Self {
        match qtype {
            Type::A => Self::A,
            Type::AAAA => Self::Aaaa,
            Type::ANY => Self::Any,
            Type::AXFR => Self::Axfr,
            Type::CNAME => Self::Cname,
            Type::DNSKEY => Self::Dnskey,
            Type::DS => Self::Ds,
            Type::HTTPS => Self::Https,
            Type::IXFR => Self::Ixfr,
            Type::MX => Self::Mx,
            Type::NS => Self::Ns,
            Type::NSEC => Self::Nsec,
            Type::NSEC3 => Self::Nsec3,
            Type::PTR => Self::Ptr,
            Type::RRSIG => Self::Rrsig,
            Type::SOA => Self::Soa,
            Type::SRV => Self::Srv,
            Type::TXT => Self::Txt,
            _ => Self::Other,
        }
    }
}

// === impl Said ===

impl Said {
    /// The series of an rcode.
    pub fn of(rcode: Rcode) -> Self {
        match rcode {
            Rcode::NOERROR => Self::NoError,
            Rcode::NXDOMAIN => Self::NxDomain,
            Rcode::REFUSED => Self::Refused,
            Rcode::SERVFAIL => Self::ServFail,
            _ => Self::Other,
        }
    }
}
