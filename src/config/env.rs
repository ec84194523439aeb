//! `${NAME}` and `${NAME:-default}` in the values of a configuration.
//!
//! Expansion happens behind the YAML parser, in one scalar at a time: what the environment says can fill a value and can
//! never become structure. `$$` is a dollar sign; a `$` before anything else stands for itself.

/// Replaces every reference in `text` by what `env` says.
///
/// A default stands in for a variable that is unset or empty, as in a shell; it is taken as it stands.
///
/// # Errors
/// The first reference that cannot be replaced.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        if let Some(after) = behind.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inside) = behind.strip_prefix('{') {
            let Some(end) = inside.find('}') else {
                return Err(Unexpanded { reference: format!("${{{inside}"), reason: Reason::Unclosed });
            };
            let reference = || format!("${{{}}}", &inside[..end]);
            let (name, default) = match inside[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inside[..end], None),
            };
            if !is_name(name) {
                return Err(Unexpanded { reference: reference(), reason: Reason::BadName });
            }
            match (env(name), default) {
                (Some(value), Some(default)) if value.is_empty() => out.push_str(default),
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => {
                    return Err(Unexpanded { reference: reference(), reason: Reason::Unset(name.to_owned()) });
                }
            }
            rest = &inside[end + 1..];
        } else {
            out.push('$');
            rest = behind;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// A reference that names nothing.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Unexpanded {
    /// As written, braces included.
    pub reference: String,
    pub reason: Reason,
}

#[derive(Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// What stands between the braces is no name of a variable.
    BadName,
    /// The closing brace is missing.
    Unclosed,
    /// This variable is not set, and the reference has no default.
    Unset(String),
}

/// POSIX.1 section 8.1: letters, digits and `_`, no digit first.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|it: char| it.is_ascii_digit())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "IP" => Some("10.0.0.1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${IP}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_where_they_stand() {
        for (text, expanded) in [
            ("plain", "plain"),
            ("${IP}", "10.0.0.1"),
            ("${IP}:${PORT:-53}", "10.0.0.1:53"),
            ("${EMPTY:-x}|${EMPTY}|${GONE:-}", "x||"),
            ("$$|$${IP}|a$|$b", "$|${IP}|a$|$b"),
            ("${NESTED}", "${IP}"),
            ("${GONE:-fd00::1}", "fd00::1"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn a_reference_to_nothing_is_named() {
        for (text, reference, reason) in [
            ("a ${GONE}", "${GONE}", Reason::Unset("GONE".to_owned())),
            ("${IP", "${IP", Reason::Unclosed),
            ("${1P}", "${1P}", Reason::BadName),
            ("${}", "${}", Reason::BadName),
            ("${IP:53}", "${IP:53}", Reason::BadName),
        ] {
            assert_eq!(expand(text, &env), Err(Unexpanded { reference: reference.to_owned(), reason }), "{text}");
        }
    }
}
