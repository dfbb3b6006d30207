//! Finds secrets in text that people write, so that none is stored where many can read it (`rest.md` 12.1).
//!
//! The finding names the kind and the place, never the secret. The patterns are those of well-known credentials with a
//! recognisable form; words that only begin like one ("sk-learn", "task-…") must not stop anybody from saving a prompt,
//! so a short candidate of a weak form has to contain a digit.

use std::{ops::Range, sync::LazyLock};

use regex::{Match, Regex};

/// A candidate of this length counts even without a digit.
const CERTAIN_CHARS: usize = 32;
/// No pattern finds less.
const SHORTEST_BYTES: usize = 15;

struct Pattern {
    kind: &'static str,
    /// Every match holds one of these, and looking for them is cheap. Where there is none, letters of any case match.
    needles: &'static [&'static str],
    regex: Regex,
    /// The form also occurs in plain words: a short candidate needs a digit.
    is_weak: bool,
}

impl Pattern {
    fn hits<'t>(&self, text: &'t str) -> impl Iterator<Item = Match<'t>> {
        let is_possible = self.needles.is_empty() || self.needles.iter().any(|needle| text.contains(needle));
        let candidates = is_possible.then(|| self.regex.find_iter(text)).into_iter().flatten();
        candidates.filter(|hit| !self.is_weak || is_likely(hit.as_str()))
    }
}

/// Kind, needles, pattern, whether the form also occurs in plain words. Boundaries of words are those of ASCII, which take
/// one pass over any text.
type Row = (&'static str, &'static [&'static str], &'static str, bool);

const PATTERNS: &[Row] = &[
    (
        "private key",
        &["-----BEGIN "],
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
        false,
    ),
    ("Copass API key", &["olk_"], r"(?-u:\b)olk_[A-Za-z0-9_-]{12,}", true),
    (
        "AWS access key",
        &["AKIA", "ASIA", "ABIA", "ACCA"],
        r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?-u:\b)",
        false,
    ),
    (
        "AWS secret key",
        &[],
        r"(?i)(?-u:\b)aws_?secret_?(?:access_?)?key(?-u:\b)\W{1,5}[A-Za-z0-9/+]{40}",
        false,
    ),
    ("Google API key", &["AIza"], r"(?-u:\b)AIza[A-Za-z0-9_-]{35}", false),
    (
        "GitHub token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        r"(?-u:\b)gh[pousr]_[A-Za-z0-9]{16,}",
        false,
    ),
    (
        "GitHub token",
        &["github_pat_"],
        r"(?-u:\b)github_pat_[A-Za-z0-9_]{20,}",
        false,
    ),
    ("GitLab token", &["glpat-"], r"(?-u:\b)glpat-[A-Za-z0-9_-]{16,}", true),
    ("Slack token", &["xox"], r"(?-u:\b)xox[a-z]-[A-Za-z0-9-]{10,}", true),
    (
        "Linear API key",
        &["lin_api_"],
        r"(?-u:\b)lin_api_[A-Za-z0-9]{12,}",
        true,
    ),
    (
        "Stripe key",
        &["k_live_", "k_test_"],
        r"(?-u:\b)[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
        false,
    ),
    ("API key (sk-…)", &["sk-"], r"(?-u:\b)sk-[A-Za-z0-9_-]{16,}", true),
    (
        "JSON web token",
        &["eyJ"],
        r"(?-u:\b)eyJ[A-Za-z0-9_-]{5,}\.eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}",
        false,
    ),
];

static COMPILED: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    PATTERNS
        .iter()
        .filter_map(|(kind, needles, pattern, is_weak)| {
            Regex::new(pattern).ok().map(|regex| Pattern {
                kind,
                needles,
                regex,
                is_weak: *is_weak,
            })
        })
        .collect()
});

/// Where a secret stands and what it looks like; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What the text looks like, for example `AWS access key`.
    pub kind: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// The character within the line, from 1.
    pub column: usize,
}

/// The first secret in the text, by place.
#[must_use]
pub fn find(text: &str) -> Option<Finding> {
    let first = COMPILED
        .iter()
        .filter_map(|pattern| {
            let hit = pattern.hits(text).next()?;
            Some((hit.start(), pattern.kind))
        })
        .min()?;
    let before = &text[..first.0];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(Finding {
        kind: first.1,
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    })
}

/// Where secrets stand in the text, in order; places that overlap are one.
#[must_use]
pub fn all(text: &str) -> Vec<Range<usize>> {
    if text.len() < SHORTEST_BYTES {
        return Vec::new();
    }
    let mut places: Vec<Range<usize>> = COMPILED
        .iter()
        .flat_map(|pattern| pattern.hits(text).map(|hit| hit.range()))
        .collect();
    places.sort_by_key(|place| place.start);
    places.dedup_by(|next, place| {
        let is_same = next.start <= place.end;
        if is_same {
            place.end = place.end.max(next.end);
        }
        is_same
    });
    places
}

fn is_likely(candidate: &str) -> bool {
    candidate.len() >= CERTAIN_CHARS || candidate.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(COMPILED.len(), PATTERNS.len());
    }

    #[test]
    fn secrets_are_found_with_kind_and_place() {
        let long = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0";
        for (kind, secret) in [
            ("Copass API key", format!("olk_{long}")),
            ("Copass API key", "olk_".to_owned() + &"x".repeat(43)),
            ("AWS access key", "AKIAIOSFODNN7EXAMPLE".to_owned()),
            ("AWS secret key", format!("aws_secret_access_key = {long}")),
            ("AWS secret key", format!("Aws_sEcRet_Access_Key = {long}")),
            ("Google API key", format!("AIza{}", &long[..35])),
            ("GitHub token", format!("ghp_{}", &long[..36])),
            ("GitHub token", format!("github_pat_{long}")),
            ("Slack token", "xoxb-123456789012-abcdef".to_owned()),
            ("Linear API key", format!("lin_api_{long}")),
            ("Stripe key", format!("sk_live_{long}")),
            ("API key (sk-…)", format!("sk-ant-api03-{long}")),
            ("API key (sk-…)", format!("sk-proj-{long}")),
            (
                "JSON web token",
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl".to_owned(),
            ),
            ("private key", "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned()),
            ("private key", "-----BEGIN PRIVATE KEY-----".to_owned()),
        ] {
            let text = format!("You are helpful.\nÄöü: {secret} and more");
            let finding = find(&text).unwrap_or_else(|| panic!("{kind} is not found"));
            assert_eq!((finding.kind, finding.line, finding.column), (kind, 2, 6), "{kind}");
        }
    }

    #[test]
    fn words_that_only_look_alike_are_left_alone() {
        for text in [
            "use sk-learn-based-models where you can",
            "a task-oriented-assistant-for-everybody",
            "risk-assessment-of-the-whole-portfolio",
            "keys begin with olk_ and tokens with ghp_ or xoxb-",
            "olk_your_key_here",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----",
            "eyJ is how a token begins",
            "",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_one_counts() {
        let text = format!("x\n\nAKIAIOSFODNN7EXAMPLE\nghp_{}", "a1".repeat(18));
        assert_eq!(find(&text).map(|finding| (finding.line, finding.column)), Some((3, 1)));
        assert_eq!(all(&text), [3..23, 24..64]);
        let twice = format!("sk-ant-{0} olk_{0}", "a1".repeat(10));
        assert_eq!(all(&twice).len(), 2);
        assert!(all("nothing").is_empty());
    }
}
