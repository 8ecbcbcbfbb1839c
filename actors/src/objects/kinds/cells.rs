//! Columns of tables, and how the cells below them come from an object
//! (kubernetes `pkg/printers/internalversion/printers.go`).

use super::{Fields, texts};
use crate::objects::{LabelSelector, Object, ObjectMeta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kubesim_runtime::Wall;
use serde_json::Value;

/// A column of `kubectl get`.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// Its type in OpenAPI.
    pub kind: &'static str,
    /// Shown in wide output only.
    pub wide: bool,
    pub cell: Cell,
}

/// Where a cell comes from. Paths are those of [`Fields`], `status` included.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    Name,
    Age,
    /// When it was created, in UTC.
    Created,
    /// What is there, or else this.
    Or(&'static str, &'static str),
    /// 0 if there is none.
    Number(&'static str),
    /// How many there are.
    Count(&'static str),
    /// Whether it is so, and what is said of that by default.
    Flag(&'static str, bool),
    /// A list's texts, or else this.
    Joined(&'static str, &'static str),
    /// Labels, `a=b`.
    Labels(&'static str),
    /// A label selector.
    Selector(&'static str),
    /// Names and images of a template's containers; the path is the pod spec's.
    Containers(&'static str),
    Images(&'static str),
    /// How long ago it was, or else this.
    Since(&'static str, &'static str),
    Made(fn(&Shown<'_>) -> Value),
    /// Of a kind with types of its own, whose row is made in one piece.
    Own,
}

/// What a cell is made of.
#[derive(Debug)]
pub struct Shown<'a> {
    pub name: &'a str,
    pub meta: &'a ObjectMeta,
    /// The status is one of them.
    pub fields: &'a Fields,
    /// What ages are counted from.
    pub now: Wall,
}

pub(super) const fn column(name: &'static str, cell: Cell) -> Column {
    let kind = match cell {
        Cell::Number(_) => "integer",
        Cell::Flag(..) => "boolean",
        _ => "string",
    };
    Column { name, kind, wide: false, cell }
}

/// One that is shown in wide output only.
pub(super) const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { wide: true, ..column(name, cell) }
}

/// One of a row that is made in one piece.
pub(super) const fn own(name: &'static str) -> Column {
    column(name, Cell::Own)
}
pub(super) const fn own_number(name: &'static str) -> Column {
    Column { kind: "integer", ..own(name) }
}
pub(super) const fn own_wide(name: &'static str) -> Column {
    wide(name, Cell::Own)
}

pub(super) const NAME: Column = column("Name", Cell::Name);
pub(super) const AGE: Column = column("Age", Cell::Age);

/// The row of an object that is held as its fields; `None` for one with types of its own.
pub fn row(object: &Object, now: Wall) -> Option<Vec<Value>> {
    let plain = object.plain()?;
    let mut fields = (*plain.fields).clone();
    fields.0.insert("status".to_owned(), (*plain.status).clone());
    let shown = Shown { name: &object.key.name, meta: &object.meta, fields: &fields, now };
    let columns = plain.kind.declaration().columns;
    Some(columns.iter().map(|column| column.cell.of(&shown)).collect())
}

impl Cell {
    fn of(self, shown: &Shown<'_>) -> Value {
        let fields = shown.fields;
        let created = shown.meta.creation_timestamp.as_ref();
        match self {
            Cell::Name => shown.name.into(),
            Cell::Age => texts::since(created, shown.now).into(),
            Cell::Created => match created {
                Some(Time(at)) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
                None => "<unknown>".into(),
            },
            Cell::Or(path, other) => plain_text(fields.at(path)).unwrap_or(other.into()).into(),
            Cell::Number(path) => fields.number(path).unwrap_or_default().into(),
            Cell::Count(path) => count(fields.at(path)).into(),
            Cell::Flag(path, other) => {
                fields.at(path).and_then(Value::as_bool).unwrap_or(other).into()
            }
            Cell::Joined(path, other) => {
                let all: Vec<&str> = fields.list(path).iter().filter_map(Value::as_str).collect();
                if all.is_empty() { other.into() } else { all.join(",").into() }
            }
            Cell::Labels(path) => texts::labels(Some(&fields.part(path))).into(),
            Cell::Selector(path) => {
                let selector: LabelSelector = fields.part(path);
                texts::or_none(texts::requirements(&selector)).into()
            }
            Cell::Containers(path) => of_containers(fields, path, "name"),
            Cell::Images(path) => of_containers(fields, path, "image"),
            Cell::Since(path, other) => match time(fields.text(path)) {
                Some(then) => texts::since(Some(&then), shown.now).into(),
                None => other.into(),
            },
            Cell::Made(make) => make(shown),
            Cell::Own => Value::Null,
        }
    }
}

fn plain_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn count(value: Option<&Value>) -> usize {
    match value {
        Some(Value::Array(all)) => all.len(),
        Some(Value::Object(all)) => all.len(),
        _ => 0,
    }
}

fn of_containers(fields: &Fields, pod: &str, field: &str) -> Value {
    let containers = fields.at(pod).and_then(|pod| pod["containers"].as_array());
    let all = containers.into_iter().flatten().map(|one| one[field].as_str().unwrap_or_default());
    all.collect::<Vec<_>>().join(",").into()
}

pub(super) fn time(text: &str) -> Option<Time> {
    text.parse::<Timestamp>().ok().map(Time)
}
