//! Names, labels and their values as Kubernetes takes them, and what it says of others: the checks
//! and the words of apimachinery's `pkg/util/validation/validation.go`. What is wrong with a text
//! is a list, empty when nothing is.

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
    or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
    '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
    used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
    '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";

/// Of most objects' names, and of a label's prefix.
pub fn subdomain(text: &str) -> Vec<String> {
    check(text, 253, text.split('.').all(is_label), SUBDOMAIN)
}

/// Of a namespace's name and a container's.
pub fn label(text: &str) -> Vec<String> {
    check(text, 63, is_label(text), LABEL)
}

/// Of a Service's name.
pub fn label_1035(text: &str) -> Vec<String> {
    let good = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    check(text, 63, good, LABEL_1035)
}

/// Of a label's name, `example.com/name` or `name` (IsQualifiedName).
pub fn qualified(text: &str) -> Vec<String> {
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((prefix, name)) => (Some(prefix), name),
    };
    if name.contains('/') {
        let form = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
        return vec![format!("a qualified name {QUALIFIED} {form}")];
    }
    let mut wrong = Vec::new();
    match prefix {
        Some("") => wrong.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            let parts = subdomain(prefix).into_iter().map(|why| format!("prefix part {why}"));
            wrong.extend(parts);
        }
        None => {}
    }
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    }
    wrong
        .extend(check(name, 63, is_word(name), QUALIFIED).iter().map(|w| format!("name part {w}")));
    wrong
}

/// Of a key of a ConfigMap or Secret (IsConfigMapKey).
pub fn config_key(text: &str) -> Vec<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut wrong = check(text, 253, !text.is_empty() && text.chars().all(good), CONFIG_KEY);
    match text {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// Of what may have any name that fits a path (IsValidPathSegmentName).
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    let found = ["/", "%"].into_iter().filter(|c| text.contains(c));
    found.map(|c| format!("may not contain '{c}'")).collect()
}

/// Of a label's value (IsValidLabelValue).
pub fn label_value(text: &str) -> Vec<String> {
    check(text, 63, text.is_empty() || is_word(text), LABEL_VALUE)
}

fn check(text: &str, limit: usize, good: bool, why: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > limit {
        wrong.push(format!("must be no more than {limit} characters"));
    }
    if !good {
        wrong.push(why.to_owned());
    }
    wrong
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    bytes.iter().all(inner)
        && bytes.first().is_some_and(|b| *b != b'-')
        && bytes.last().is_some_and(|b| *b != b'-')
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    bytes.iter().all(inner)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstream_takes_is_taken_and_nothing_else() {
        type Check = fn(&str) -> Vec<String>;
        let long = |n: usize| "a".repeat(n);
        let cases: [(Check, &[&str], &[&str]); 5] = [
            (subdomain, &["a", "a.b-c.1", &long(253)], &["", "A", "a_b", "-a", "a.", &long(254)]),
            (label, &["a", "1-a", &long(63)], &["", "a.b", "a-", "é", &long(64)]),
            (label_1035, &["a", "a1-b"], &["", "1a", "a.b", "A"]),
            (
                qualified,
                &["a", "A_b.c", "example.com/Name", &format!("x.y/{}", long(63))],
                &["", "/a", "a/", "a/b/c", "Ex.com/a", "-a", "a b", &long(64)],
            ),
            (label_value, &["", "a", "A_b.c-1", &long(63)], &["-", "a b", "a/b", &long(64)]),
        ];
        for (number, (check, good, bad)) in cases.into_iter().enumerate() {
            for text in good {
                assert_eq!(check(text), Vec::<String>::new(), "{number} {text}");
            }
            for text in bad {
                assert!(!check(text).is_empty(), "{number} {text}");
            }
        }
        assert_eq!(
            qualified("/"),
            [
                "prefix part must be non-empty".to_owned(),
                "name part must be non-empty".to_owned(),
                format!("name part {QUALIFIED}"),
            ]
        );
    }
}
