//! Where the keys of a YAML document stand: what a value alone does not say.

use kubesim_actors::objects::Step;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;
use std::ops::Range;

/// A document by its keys.
enum Tree {
    Map(Vec<(Spanned<String>, Tree)>),
    List(Vec<Tree>),
    Plain,
}

/// Bytes of the innermost key on a path that there is.
pub fn find(document: &str, path: &[Step]) -> Option<Range<usize>> {
    let mut here = &serde_saphyr::from_str::<Tree>(document).ok()?;
    let mut found = None;
    for step in path {
        here = match (here, step) {
            (Tree::Map(entries), Step::Field(name)) => {
                let Some((key, value)) = entries.iter().find(|(key, _)| key.value == *name) else {
                    break;
                };
                found = Some(key);
                value
            }
            (Tree::List(items), Step::Item(number)) => match items.get(*number) {
                Some(item) => item,
                None => break,
            },
            _ => break,
        };
    }
    let key = found?;
    let start = byte(document, key.defined.line() as usize, key.defined.column() as usize);
    Some(start..(start + key.value.len()).min(document.len()))
}

/// The byte of a line and a column in characters, both from 1.
pub fn byte(text: &str, line: usize, column: usize) -> usize {
    let above = text.split_inclusive('\n').take(line.max(1) - 1).map(str::len).sum::<usize>();
    let rest = &text[above..];
    let inside = rest.char_indices().nth(column.max(1) - 1).map_or(rest.len(), |(at, _)| at);
    above + inside
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_innermost_key() {
        let text = "# é\nspec:\n  ports:\n  - {port: 80}\n  - 'é': 1\n    \"prot\": x\n";
        let path = |names: &[&str]| -> Vec<Step> {
            let step = |name: &&str| match name.parse() {
                Ok(number) => Step::Item(number),
                Err(_) => Step::Field((*name).to_owned()),
            };
            names.iter().map(step).collect()
        };
        let found = |names: &[&str]| find(text, &path(names)).map(|range| range.start);
        assert_eq!(found(&["spec"]), text.find("spec"));
        assert_eq!(found(&["spec", "ports", "0", "port"]), text.find("port:"));
        assert_eq!(found(&["spec", "ports", "1", "prot"]), text.find("\"prot\""));
        assert_eq!(found(&["spec", "ports", "7", "prot"]), text.find("ports"));
        assert_eq!(found(&["metadata"]), None);
    }
}
