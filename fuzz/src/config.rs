//! A configuration is a plan, or a list of mistakes that can be shown on a terminal and points into the file.
//!
//! Shape: the file.

use nodens::config::{self, ConfigErrors};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| (!name.starts_with("NO")).then(|| "10.0.0.1".to_owned());
    if let Err(errors) = config::parse(text, "fuzz.yaml", &env) {
        assert_fit_to_show(&errors, text);
    }
}

/// A terminal shows them as they are, and each place lies in `text`.
pub fn assert_fit_to_show(errors: &ConfigErrors, text: &str) {
    let shown = errors.to_string();
    assert!(shown.chars().all(|it| it == '\n' || !it.is_control()), "{shown:?}");
    assert!(!errors.mistakes().is_empty() && errors.mistakes().len() <= 100);
    // A line end of YAML (1.2.2 section 5.4) is one or two characters.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for mistake in errors.mistakes() {
        assert!(!mistake.what.is_empty() && !mistake.remedy.is_empty());
        if let Some(place) = mistake.place {
            assert!((1..=lines).contains(&place.line) && place.column >= 1, "{place:?} of {lines} lines");
        }
    }
}
