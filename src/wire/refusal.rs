//! Why a client's query is not answered, and what the client gets for it.
//!
//! Read first: RFC 8906 section 3, RFC 6891 section 6.1.3.

use std::fmt;

use super::Rcode;
use super::edns::Unreadable;

/// Why a query is not answered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// A record of the additional section cannot be read.
    Additional,
    /// The class is neither IN nor NONE.
    Class,
    /// The class is NONE, which only updates use (RFC 2136 section 2.4).
    ClassNone,
    /// A COOKIE option of impossible length (RFC 7873 section 5.2.2).
    Cookie,
    /// Records in the answer or authority section.
    ForeignSection,
    /// A tcp-keepalive option with a timeout (RFC 7828 section 3.2.1).
    Keepalive,
    /// Octets behind the last record.
    LeftOver,
    /// Not a standard query.
    Opcode,
    /// Two OPT records, one with an owner, or one whose options cannot be read.
    Opt,
    /// The question cannot be read.
    Question,
    /// Not exactly one question (RFC 9619).
    QuestionCount,
    /// QR=1: a reply to it could be the start of a loop.
    Response,
    /// Less than a header.
    Short,
    /// A TSIG that is not the last record (RFC 8945 section 5.1).
    Tsig,
    /// A type nobody may ask for: 0, and NXNAME (RFC 9824 section 3.5).
    TypeInvalid,
    /// A transfer, or another type that is no data (RFC 6895 section 3.1).
    TypeMeta,
    /// An EDNS version other than 0.
    Version,
}

impl Refusal {
    /// Every refusal, for those who count them.
    pub const ALL: [Self; 17] = [
        Self::Additional,
        Self::Class,
        Self::ClassNone,
        Self::Cookie,
        Self::ForeignSection,
        Self::Keepalive,
        Self::LeftOver,
        Self::Opcode,
        Self::Opt,
        Self::Question,
        Self::QuestionCount,
        Self::Response,
        Self::Short,
        Self::Tsig,
        Self::TypeInvalid,
        Self::TypeMeta,
        Self::Version,
    ];

    /// The reason's name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Additional => "additional",
            Self::Class => "class",
            Self::ClassNone => "class_none",
            Self::Cookie => "cookie",
            Self::ForeignSection => "foreign_section",
            Self::Keepalive => "keepalive",
            Self::LeftOver => "left_over",
            Self::Opcode => "opcode",
            Self::Opt => "opt",
            Self::Question => "question",
            Self::QuestionCount => "question_count",
            Self::Response => "response",
            Self::Short => "short",
            Self::Tsig => "tsig",
            Self::TypeInvalid => "type_invalid",
            Self::TypeMeta => "type_meta",
            Self::Version => "version",
        }
    }

    /// The response code the client gets; `None`: no reply at all.
    pub const fn rcode(self) -> Option<Rcode> {
        match self {
            Self::Response | Self::Short => None,
            Self::Opcode => Some(Rcode::NOTIMP),
            Self::Class | Self::TypeMeta => Some(Rcode::REFUSED),
            Self::Version => Some(Rcode::BADVERS),
            Self::Additional
            | Self::ClassNone
            | Self::Cookie
            | Self::ForeignSection
            | Self::Keepalive
            | Self::LeftOver
            | Self::Opt
            | Self::Question
            | Self::QuestionCount
            | Self::Tsig
            | Self::TypeInvalid => Some(Rcode::FORMERR),
        }
    }
}

impl From<Unreadable> for Refusal {
    fn from(flaw: Unreadable) -> Self {
        match flaw {
            Unreadable::Cookie => Self::Cookie,
            Unreadable::Keepalive => Self::Keepalive,
            Unreadable::Options => Self::Opt,
            Unreadable::Version => Self::Version,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_refusal_has_a_label_of_its_own() {
        let labels: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }

    // MC01, MC19
    #[test]
    fn only_what_could_loop_or_has_no_header_gets_no_reply() {
        let silent: Vec<_> = Refusal::ALL.into_iter().filter(|refusal| refusal.rcode().is_none()).collect();
        assert_eq!(silent, [Refusal::Response, Refusal::Short]);
    }
}
