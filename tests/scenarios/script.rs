//! Reading a scenario file: lines become steps, each with its place. The language is told in README.md.

use std::time::Duration;

/// A scenario, read but not played.
pub struct Script {
    /// The configuration in force at the start, YAML; `None`: the one that [`crate::world::CONFIG`] says.
    pub config: Option<String>,
    pub steps: Vec<Step>,
}

/// One line that does something, with the lines that belong to it.
pub struct Step {
    /// Counted from 1.
    pub line: usize,
    pub text: String,
    pub what: What,
}

pub enum What {
    Ask {
        times: usize,
        label: String,
        name: String,
        rtype: String,
        words: Words,
    },
    At(When),
    Cache(Words),
    /// What a server does to every question from here on.
    Becomes {
        server: u8,
        manner: Manner,
    },
    Dropped {
        times: usize,
        label: String,
        reason: Option<String>,
    },
    Flights(usize),
    Flush(Words),
    Gets {
        server: u8,
        name: String,
        rtype: String,
        words: Words,
    },
    Got {
        server: u8,
        bound: Bound,
        count: usize,
    },
    /// The server forwards the health probe it gets to ourselves.
    Loop {
        server: u8,
    },
    Probe {
        server: u8,
    },
    Reload(String),
    Repeat {
        times: usize,
        every: Option<Duration>,
        steps: Vec<Step>,
    },
    Reply {
        times: usize,
        label: String,
        says: Says,
    },
    /// An answer, or something like one, to a question the server got.
    Sends {
        server: u8,
        to: Target,
        what: Sent,
    },
    Waiting(usize),
}

/// Which of the questions that a server has not answered.
pub enum Target {
    Named(String, String),
    Newest,
    Oldest,
}

#[derive(Clone, Copy)]
pub enum When {
    After(Duration),
    Since(Duration),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Bound {
    Exactly,
    Most,
    Least,
}

/// Name and type of a question.
type Named = (String, String);

#[derive(Clone)]
pub enum Manner {
    Answers { to: Option<Named>, says: Says, after: Duration },
    Closed,
    Scripted,
    Silent,
}

pub enum Sent {
    Answer(Says),
    Break,
    Malformed,
    WrongCase,
    WrongId,
    WrongQuestion,
}

/// A response: what a server says or what a client shall get.
#[derive(Clone)]
pub struct Says {
    pub rcode: String,
    pub words: Words,
    /// Section and record, in presentation form.
    pub records: Vec<(Section, String)>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// Words of the form `key` or `key=value`.
#[derive(Clone, Default)]
pub struct Words(pub Vec<(String, String)>);

/// What is wrong with a scenario file.
#[derive(Debug)]
pub struct Wrong {
    pub line: usize,
    pub text: String,
    pub why: String,
}

impl Words {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The words of `text`, all of which must be `known`.
    fn read(text: &[&str], known: &[&str]) -> Result<Self, String> {
        let mut words = Vec::new();
        for word in text {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if !known.contains(&key) {
                return Err(format!("`{key}` is not known here; known are: {}", known.join(", ")));
            }
            words.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(words))
    }
}

/// The ids in the head of a file, `# C01, C14: a sentence`.
pub fn ids(text: &str) -> Vec<&str> {
    let head = text.lines().next().and_then(|line| line.strip_prefix("# ")?.split_once(": "));
    head.map_or_else(Vec::new, |(ids, _)| ids.split(", ").collect())
}

/// Reads the text of a scenario file.
pub fn read(text: &str) -> Result<Script, Wrong> {
    let well_formed = |id: &&str| id.len() == 3 && id.starts_with(|it: char| it.is_ascii_uppercase());
    if ids(text).is_empty() || !ids(text).iter().all(well_formed) {
        let why = "a scenario begins with `# ID: a sentence`, such as `# C01, C14: answers age`".to_owned();
        return Err(Wrong { line: 1, text: text.lines().next().unwrap_or_default().to_owned(), why });
    }
    let mut lines = Lines { lines: text.lines().collect(), next: 0 };
    let mut config = None;
    if lines.peek().is_some_and(|(_, line)| line.trim() == "config:") {
        lines.next();
        config = Some(lines.block());
    }
    let steps = steps(&mut lines, None)?;
    Ok(Script { config, steps })
}

struct Lines<'t> {
    lines: Vec<&'t str>,
    next: usize,
}

impl<'t> Lines<'t> {
    /// The next line that says something, and its number.
    fn peek(&mut self) -> Option<(usize, &'t str)> {
        while self.lines.get(self.next).is_some_and(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
            self.next += 1;
        }
        self.lines.get(self.next).map(|line| (self.next + 1, *line))
    }

    fn next(&mut self) -> Option<(usize, &'t str)> {
        let line = self.peek();
        self.next += 1;
        line
    }

    /// The indented lines that follow, up to an empty one.
    fn block(&mut self) -> String {
        let mut block = String::new();
        while let Some(line) = self.lines.get(self.next)
            && line.starts_with(' ')
        {
            block.push_str(line);
            block.push('\n');
            self.next += 1;
        }
        block
    }

    /// The records that follow.
    fn records(&mut self) -> Vec<(Section, String)> {
        let mut records = Vec::new();
        while let Some((_, line)) = self.peek() {
            let (word, rest) = line.trim().split_once(' ').unwrap_or((line, ""));
            let section = match word {
                "answer" => Section::Answer,
                "authority" => Section::Authority,
                "additional" => Section::Additional,
                _ => break,
            };
            records.push((section, rest.trim().to_owned()));
            self.next += 1;
        }
        records
    }
}

/// Reads to the end, or to the `end` of the `repeat` at line `within`.
fn steps(lines: &mut Lines<'_>, within: Option<usize>) -> Result<Vec<Step>, Wrong> {
    let mut steps = Vec::new();
    while let Some((line, text)) = lines.next() {
        let wrong = |why: String| Wrong { line, text: text.trim().to_owned(), why };
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut words = &words[..];
        if words == ["end"] && within.is_some() {
            return Ok(steps);
        }
        if let ["at", time, rest @ ..] = words {
            let when = match time.strip_prefix('+') {
                Some(time) => duration(time).map(When::After),
                None => duration(time).map(When::Since),
            };
            steps.push(Step { line, text: format!("at {time}"), what: What::At(when.map_err(&wrong)?) });
            words = rest;
        }
        if words.is_empty() {
            continue;
        }
        let what = if let ["repeat", rest @ ..] = words {
            let (times, every) = match rest {
                [times] => (times, None),
                [times, "every", every] => (times, Some(duration(every).map_err(&wrong)?)),
                _ => return Err(wrong("write `repeat COUNT` or `repeat COUNT every TIME`".to_owned())),
            };
            let times = number(times).map_err(&wrong)?;
            What::Repeat { times, every, steps: self::steps(lines, Some(line))? }
        } else if words == ["reload:"] {
            What::Reload(lines.block())
        } else {
            step(words, lines).map_err(wrong)?
        };
        steps.push(Step { line, text: words.join(" "), what });
    }
    match within {
        Some(line) => Err(Wrong { line, text: "repeat".to_owned(), why: "this `repeat` has no `end`".to_owned() }),
        None => Ok(steps),
    }
}

const ASK: &[&str] = &["from", "tcp", "edns", "do", "cd", "ad", "rd", "class", "id", "option"];
const REPLY: &[&str] = &[
    "aa",
    "ad",
    "tc",
    "ttl",
    "soa-ttl",
    "ede",
    "a",
    "aaaa",
    "answers",
    "authorities",
    "additionals",
    "size",
    "size-at-most",
    "option",
    "no-option",
];
const SAYS: &[&str] =
    &["a", "aaaa", "cname", "srv", "ttl", "soa", "minimum", "aa", "ad", "tc", "rd", "ra", "no-edns", "after", "option"];

fn step(words: &[&str], lines: &mut Lines<'_>) -> Result<What, String> {
    Ok(match words {
        ["ask", rest @ ..] => {
            let (times, label, rest) = times_and_label(rest)?;
            let [name, rtype, rest @ ..] = rest else { return Err("ask whom for what? `ask NAME TYPE`".to_owned()) };
            What::Ask {
                times,
                label,
                name: (*name).to_owned(),
                rtype: (*rtype).to_owned(),
                words: Words::read(rest, ASK)?,
            }
        }
        ["reply", rest @ ..] => {
            let (times, label, rest) = times_and_label(rest)?;
            What::Reply { times, label, says: says(rest, REPLY, lines)? }
        }
        ["dropped", rest @ ..] => {
            let (times, label, rest) = times_and_label(rest)?;
            What::Dropped { times, label, reason: rest.first().map(|it| (*it).to_owned()) }
        }
        ["waiting", count] => What::Waiting(number(count)?),
        ["flights", count] => What::Flights(number(count)?),
        ["cache", rest @ ..] => What::Cache(Words::read(rest, &["positive", "negative", "failures"])?),
        ["flush", rest @ ..] => What::Flush(Words::read(rest, &["name", "zone"])?),
        [server, "forwards", "to", "us"] => What::Loop { server: self::server(server)? },
        ["probe", server] => What::Probe { server: self::server(server)? },
        [server, "gets", name, rtype, rest @ ..] => What::Gets {
            server: self::server(server)?,
            name: (*name).to_owned(),
            rtype: (*rtype).to_owned(),
            words: Words::read(rest, &["do", "cd", "no-edns", "tcp", "again"])?,
        },
        [server, "got", "nothing"] => What::Got { server: self::server(server)?, bound: Bound::Exactly, count: 0 },
        [server, "got", "at", "most", count] => {
            What::Got { server: self::server(server)?, bound: Bound::Most, count: number(count)? }
        }
        [server, "got", "at", "least", count] => {
            What::Got { server: self::server(server)?, bound: Bound::Least, count: number(count)? }
        }
        [server, "got", count] => {
            What::Got { server: self::server(server)?, bound: Bound::Exactly, count: number(count)? }
        }
        [server, "is", "silent"] => becomes(server, Manner::Silent)?,
        [server, "is", "closed"] => becomes(server, Manner::Closed)?,
        [server, "is", "scripted"] => becomes(server, Manner::Scripted)?,
        [server, "always", "answers", rest @ ..] => {
            let (to, rest) = to(rest)?;
            let says = says(rest, SAYS, lines)?;
            let after = says.words.get("after").map_or(Ok(Duration::ZERO), duration)?;
            becomes(server, Manner::Answers { to, says, after })?
        }
        [server, "answers", rest @ ..] => {
            let (to, rest) = target(rest)?;
            What::Sends { server: self::server(server)?, to, what: Sent::Answer(says(rest, SAYS, lines)?) }
        }
        [server, "breaks", rest @ ..] => {
            What::Sends { server: self::server(server)?, to: target(rest)?.0, what: Sent::Break }
        }
        [server, "sends", rest @ ..] => {
            let (to, rest) = target(rest)?;
            let what = match rest {
                ["malformed"] => Sent::Malformed,
                ["wrong-case"] => Sent::WrongCase,
                ["wrong-id"] => Sent::WrongId,
                ["wrong-question"] => Sent::WrongQuestion,
                _ => return Err("known are: malformed, wrong-case, wrong-id, wrong-question".to_owned()),
            };
            What::Sends { server: self::server(server)?, to, what }
        }
        _ => return Err("no step begins like this; see README.md".to_owned()),
    })
}

fn becomes(server: &str, manner: Manner) -> Result<What, String> {
    Ok(What::Becomes { server: self::server(server)?, manner })
}

fn says(words: &[&str], known: &[&str], lines: &mut Lines<'_>) -> Result<Says, String> {
    let [rcode, rest @ ..] = words else { return Err("the first word is the rcode, such as NOERROR".to_owned()) };
    if !rcode.chars().all(|it| it.is_ascii_uppercase()) {
        return Err(format!("`{rcode}` is no rcode"));
    }
    Ok(Says { rcode: (*rcode).to_owned(), words: Words::read(rest, known)?, records: lines.records() })
}

/// `newest` or `to NAME TYPE`, if it stands there.
fn target<'a, 'w>(words: &'a [&'w str]) -> Result<(Target, &'a [&'w str]), String> {
    if let ["newest", rest @ ..] = words {
        return Ok((Target::Newest, rest));
    }
    let (to, rest) = to(words)?;
    Ok((to.map_or(Target::Oldest, |(name, rtype)| Target::Named(name, rtype)), rest))
}

/// `to NAME TYPE`, if it stands there.
fn to<'a, 'w>(words: &'a [&'w str]) -> Result<(Option<Named>, &'a [&'w str]), String> {
    match words {
        ["to", name, rtype, rest @ ..] => Ok((Some(((*name).to_owned(), (*rtype).to_owned())), rest)),
        ["to", ..] => Err("to whom? `to NAME TYPE`".to_owned()),
        _ => Ok((None, words)),
    }
}

/// `N times` and `of LABEL`, if they stand there.
fn times_and_label<'a, 'w>(words: &'a [&'w str]) -> Result<(usize, String, &'a [&'w str]), String> {
    let (times, words) = match words {
        [times, "times", rest @ ..] => (number(times)?, rest),
        _ => (1, words),
    };
    Ok(match words {
        ["of", label, rest @ ..] => (times, (*label).to_owned(), rest),
        _ => (times, String::new(), words),
    })
}

/// The last octet of the address of the server `uN`.
fn server(word: &str) -> Result<u8, String> {
    let number = word.strip_prefix('u').and_then(|it| it.parse().ok());
    number.ok_or_else(|| format!("`{word}` is no server; they are called u1, u2 …"))
}

fn number(word: &str) -> Result<usize, String> {
    word.replace('_', "").parse().map_err(|_| format!("`{word}` is no number"))
}

/// Reads `1h30m`, `400ms`, `1.8s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write 400ms, 1.8s, 5m, 24h, 7d or 1h30m");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (count, behind) = rest.split_at(rest.find(|it: char| it.is_ascii_alphabetic()).ok_or_else(wrong)?);
        let (unit, behind) = behind.split_at(behind.find(|it: char| !it.is_ascii_alphabetic()).unwrap_or(behind.len()));
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let count: f64 = count.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(count * seconds).map_err(|_| wrong())?;
        // Whole milliseconds, so that sums of times meet.
        sum += Duration::from_millis((part + Duration::from_micros(500)).as_millis() as u64);
        rest = behind;
    }
    Ok(sum)
}
