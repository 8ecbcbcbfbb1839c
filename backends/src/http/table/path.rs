//! JSONPath as columns have it: `.spec.a`, `.a[0]`, `.a['b.c']`, `.a[*]`,
//! `.a[?(@.type=="Ready")].status` (client-go `util/jsonpath`). Of what is found, a column shows the
//! first.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end, if it is negative.
    Index(i64),
    All,
    /// Elements in which a path leads to this text, or to another one.
    Where {
        path: Path,
        value: String,
        equal: bool,
    },
}

/// A way down into a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

impl Path {
    /// `None`: this is more than is understood here.
    pub fn parse(text: &str) -> Option<Path> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inner) => bracket(inner)?,
                None => field(rest.strip_prefix('.').unwrap_or(rest))?,
            };
            steps.extend(step);
            rest = after;
        }
        Some(Path(steps))
    }

    /// The first of what it leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        first(&self.0, value)
    }
}

fn first<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => first(rest, fields.get(name)?),
        (Step::Index(index), Value::Array(items)) => {
            let length = i64::try_from(items.len()).ok()?;
            let at = if *index < 0 { index + length } else { *index };
            first(rest, items.get(usize::try_from(at).ok()?)?)
        }
        (Step::All, Value::Array(items)) => items.iter().find_map(|item| first(rest, item)),
        (Step::All, Value::Object(fields)) => fields.values().find_map(|one| first(rest, one)),
        (Step::Where { path, value: wanted, equal }, Value::Array(items)) => {
            let holds = |item: &&Value| {
                let found = path.first(item);
                found.is_some_and(|found| (text(found) == *wanted) == *equal)
            };
            items.iter().filter(holds).find_map(|item| first(rest, item))
        }
        _ => None,
    }
}

/// A value as a cell's text.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A field's name, in which a dot can be escaped. An empty one is where it is.
fn field(text: &str) -> Option<(Option<Step>, &str)> {
    let mut name = String::new();
    let mut letters = text.char_indices();
    let mut end = text.len();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            letter => name.push(letter),
        }
    }
    let rest = &text[end..];
    // Two dots descend to any depth.
    if name.is_empty() && rest.starts_with('.') {
        return None;
    }
    let step = match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Field(name)),
    };
    Some((step, rest))
}

/// What follows an opening bracket.
fn bracket(inner: &str) -> Option<(Option<Step>, &str)> {
    if let Some(condition) = inner.strip_prefix("?(") {
        let (condition, rest) = condition.split_once(")]")?;
        let (path, equal, value) = match condition.split_once("==") {
            Some((path, value)) => (path, true, value),
            None => condition.split_once("!=").map(|(path, value)| (path, false, value))?,
        };
        let path = Path::parse(path.trim().strip_prefix('@')?)?;
        let value = unquoted(value.trim()).unwrap_or(value.trim()).to_owned();
        return Some((Some(Step::Where { path, value, equal }), rest));
    }
    for quote in ['\'', '"'] {
        if let Some(name) = inner.strip_prefix(quote) {
            let (name, rest) = name.split_once(&format!("{quote}]"))?;
            return Some((Some(Step::Field(name.replace("\\.", "."))), rest));
        }
    }
    let (index, rest) = inner.split_once(']')?;
    let step = if index == "*" { Step::All } else { Step::Index(index.parse().ok()?) };
    Some((Some(step), rest))
}

fn unquoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|first| ['\'', '"'].contains(first))?;
    text.strip_prefix(quote)?.strip_suffix(quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_upstreams_do() {
        let value = json!({
            "metadata": {"annotations": {"example.com/a": "x"}},
            "spec": {"size": 3, "list": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]},
            "status": {"conditions": [{"type": "Other", "status": "False"},
                {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.size", json!(3)),
            ("spec.size", json!(3)),
            (".spec.list[0].name", json!("a")),
            (".spec.list[-1].name", json!("b")),
            (".spec.list[*].n", json!(1)),
            (".metadata.annotations.example\\.com/a", json!("x")),
            (".metadata.annotations['example.com/a']", json!("x")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='Ready')].status", json!("True")),
            (".status.conditions[?(@.type!=\"Ready\")].status", json!("False")),
            (".", value.clone()),
        ] {
            let read = Path::parse(path).expect(path);
            assert_eq!(read.first(&value), Some(&expected), "{path}");
        }
        for nowhere in [".spec.none", ".spec.list[7]", ".spec.size.x", ".spec.list[?(@.x=='y')]"] {
            assert_eq!(Path::parse(nowhere).expect(nowhere).first(&value), None, "{nowhere}");
        }
        for strange in ["..name", ".a[", ".a[x]", ".a[?(@.b)]", ".a['b]"] {
            assert_eq!(Path::parse(strange), None, "{strange}");
        }
    }
}
