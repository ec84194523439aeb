//! A Corefile is a plan, or a list of mistakes that can be shown on a terminal and points into the file; and a plan can be
//! written as a `nodens.yaml` that says the same.
//!
//! Shape: the file. What it imports is itself.

use std::path::Path;

use nodens::config::corefile::{self, Settings, Surroundings};
use nodens::config::{self, MAX_FILE};

use super::config::assert_fit_to_show;

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| (!name.starts_with("NO")).then(|| "10.0.0.1".to_owned());
    let read = |_: &Path| Ok(data.to_vec());
    let list = |_: &Path| Ok(vec!["a.server".to_owned(), ".hidden".to_owned()]);
    let addresses = |_: Option<&str>| vec!["10.0.0.2".parse().expect("legal")];
    let around = Surroundings { env: &env, read: &read, list: &list, addresses: &addresses };
    let variables = vec![("__PILLAR__LOCAL__DNS__", "169.254.20.10 10.96.0.10".to_owned())];
    let settings = Settings { variables, ..Settings::default() };
    let reading = corefile::read(text, Path::new("/etc/Corefile"), &around, &settings);
    let comments: Vec<String> = reading.remarks.iter().map(ToString::to_string).collect();
    let differs = comments.iter().any(|comment| comment.contains("`client_timeout` for all"));
    match reading.plan() {
        Ok(plan) => {
            let yaml = corefile::yaml(&plan, &comments);
            if yaml.len() > MAX_FILE {
                return;
            }
            let again =
                config::parse(&yaml, "again.yaml", &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
            assert!(differs || format!("{plan:?}") == format!("{again:?}"), "{plan:#?}\n{yaml}");
        }
        Err(errors) => assert_fit_to_show(&errors, text),
    }
}
