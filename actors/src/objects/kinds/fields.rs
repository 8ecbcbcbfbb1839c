use crate::objects::typed;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What an object says besides its metadata and its status. A path is the names of fields with
/// dots between them: `spec.template`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Map<String, Value>);

impl Fields {
    pub fn at(&self, path: &str) -> Option<&Value> {
        let mut names = path.split('.');
        let first = self.0.get(names.next()?);
        names.fold(first, |value, name| value?.get(name))
    }

    /// Empty if there is none.
    pub fn text(&self, path: &str) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn number(&self, path: &str) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }

    pub fn flag(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or_default()
    }

    pub fn list(&self, path: &str) -> &[Value] {
        self.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn map(&self, path: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.at(path).and_then(Value::as_object).into_iter().flatten()
    }

    /// A part as a type of the API has it; what it is if nothing is said, if there is none.
    pub fn part<T: DeserializeOwned + Default>(&self, path: &str) -> T {
        let part = self.at(path).map(typed);
        part.and_then(Result::ok).unwrap_or_default()
    }

    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        if let Some(place) = self.place(path) {
            *place = value.into();
        }
    }

    pub fn set_part(&mut self, path: &str, part: &impl Serialize) {
        if let Ok(value) = serde_json::to_value(part) {
            self.set(path, value);
        }
    }

    /// Sets what is not there or empty.
    pub fn default(&mut self, path: &str, value: impl Into<Value>) {
        if let Some(place) = self.place(path)
            && (place.is_null() || place.as_str().is_some_and(str::is_empty))
        {
            *place = value.into();
        }
    }

    /// Where the value is, or is to be; the fields on the way to it are made.
    fn place(&mut self, path: &str) -> Option<&mut Value> {
        let (parents, name) = match path.rsplit_once('.') {
            Some((parents, name)) => (Some(parents), name),
            None => (None, path),
        };
        let mut map = &mut self.0;
        for parent in parents.into_iter().flat_map(|all| all.split('.')) {
            let value = map.entry(parent).or_insert(Value::Null);
            if value.is_null() {
                *value = Value::Object(Map::new());
            }
            map = value.as_object_mut()?;
        }
        Some(map.entry(name).or_insert(Value::Null))
    }
}
