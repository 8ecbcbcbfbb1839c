//! JSON as Go's `encoding/json` writes the API's types. Objects are held without what nobody said;
//! Go writes a field without `omitempty` whatever it holds, and a struct that is no pointer even
//! with it, since no struct is empty to it. What is empty otherwise is left out, though somebody
//! said it.
//!
//! Upstream's objects have been through protobuf before anybody sees them, where an empty list is
//! none: it is told as `null` if it is told at all. Definitions of kinds are stored as JSON.

use super::{Field, Many, Message, Type};
use serde_json::Value;

/// What Go makes of a message.
#[derive(Debug)]
pub struct Shape {
    /// By their names, which is how objects here mostly have them.
    fields: Vec<Known>,
    /// Of all fields that are always there, the bit.
    always: u64,
}

#[derive(Debug)]
struct Known {
    name: &'static str,
    field: &'static Field,
    /// What stands there if nobody said anything, with the name; nothing, if the field does not
    /// then.
    unsaid: Option<String>,
    /// Says of an object that it is there; zero if it need not be.
    bit: u64,
    /// The type's zero is as good as nothing.
    vanishes: bool,
    /// An empty list is one: it has not been through protobuf.
    kept: bool,
}

impl Message {
    fn shape(&'static self) -> &'static Shape {
        self.shape.get_or_init(|| Shape::of(self))
    }
}

impl Shape {
    fn of(message: &'static Message) -> Shape {
        let json = message.name.starts_with("apiextensions/");
        let mut fields = message.fields();
        fields.sort_by_key(|field| field.name);
        let mut always = 0_u64;
        let known = |field: &'static Field| {
            let unsaid = unsaid(field).map(|text| format!("{:?}:{text}", field.name));
            let next = 1_u64.checked_shl(always.count_ones()).unwrap_or(0);
            let bit = if unsaid.is_some() { next } else { 0 };
            always |= bit;
            let kept = json && field.always;
            let vanishes = match field.many {
                _ if field.pointer => false,
                Many::List | Many::Map => !kept,
                Many::One => !field.always && is_plain(field.kind),
            };
            Known { name: field.name, field, unsaid, bit, vanishes, kept }
        };
        let fields = fields.into_iter().map(known).collect();
        Shape { fields, always }
    }

    /// A field by its name; `next` is behind the one that was asked for before.
    fn find(&self, name: &[u8], next: &mut usize) -> Option<&Known> {
        let ahead = &self.fields[*next..];
        let behind = ahead.iter().position(|known| known.name.as_bytes() >= name);
        let at = *next + behind.unwrap_or(ahead.len());
        if self.fields.get(at).is_some_and(|known| known.name.as_bytes() == name) {
            *next = at + 1;
            return self.fields.get(at);
        }
        let at = self.fields.binary_search_by_key(&name, |known| known.name.as_bytes()).ok()?;
        self.fields.get(at)
    }
}

/// Whether `omitempty` leaves out its zero.
fn is_plain(kind: Type) -> bool {
    matches!(kind, Type::String | Type::Bytes | Type::Bool | Type::Int)
}

/// What Go writes of a field of which nothing is said.
fn unsaid(field: &Field) -> Option<String> {
    let always = |text: &str| field.always.then(|| text.to_owned());
    if field.pointer || field.many != Many::One {
        return always("null");
    }
    match field.kind {
        Type::String => always("\"\""),
        Type::Bool => always("false"),
        Type::Int => always("0"),
        Type::Bytes | Type::Strings => always("null"),
        // Structs, which write themselves.
        Type::Time | Type::MicroTime | Type::Json => Some("null".to_owned()),
        Type::Quantity => Some("\"0\"".to_owned()),
        Type::IntOrString => Some("0".to_owned()),
        Type::Message(_) => {
            let fields = field.message().map(|message| &message.shape().fields[..]);
            let said =
                fields.unwrap_or_default().iter().filter_map(|known| known.unsaid.as_deref());
            Some(format!("{{{}}}", said.collect::<Vec<_>>().join(",")))
        }
    }
}

/// Adds to `out` what Go writes of an object that is `bare`, JSON without white space. Of what
/// there may be more in than is known, it is `bare` itself.
pub fn write(message: &'static Message, bare: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    let mut walk = Walk { text: bare, at: 0, copied: 0, out };
    let walked = if message.open { None } else { walk.object(message) };
    let whole = walked.filter(|()| walk.at == bare.len());
    walk.copy(bare.len());
    if whole.is_none() {
        out.truncate(begin);
        out.extend_from_slice(bare);
    }
}

/// Goes over a text and copies it, but for what is added or left out. Where the text is not what
/// it should be, it ends with `None`.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    /// All before is in `out`, or left out.
    copied: usize,
    out: &'a mut Vec<u8>,
}

impl<'a> Walk<'a> {
    fn object(&mut self, message: &'static Message) -> Option<()> {
        if self.peek()? != b'{' {
            return self.skip();
        }
        let shape = message.shape();
        let (mut next, mut said) = (0, 0);
        let any = self.members(b'}', |walk| {
            let name = walk.name()?;
            let Some(known) = shape.find(name, &mut next) else {
                return walk.skip().map(|()| true);
            };
            if walk.holds_nothing(known)? {
                walk.skip()?;
                return Some(false);
            }
            said |= known.bit;
            walk.value(known.field)?;
            Some(true)
        })?;
        if said != shape.always {
            self.add(shape, said, any);
        }
        Some(())
    }

    /// What a struct or a map has before its end, or a list has, one after the other; `one` goes
    /// over it and says whether it stays. Then whether any does.
    fn members(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Option<bool>) -> Option<bool> {
        let mut any = false;
        self.at += 1;
        while self.peek()? != end {
            let begin = self.at;
            if one(self)? {
                any = true;
            } else if any {
                // With the comma before it.
                self.copy(begin - 1);
                self.copied = self.at;
            } else {
                self.copy(begin);
                self.copied = self.at + usize::from(self.peek()? == b',');
            }
            match self.peek()? {
                b',' => self.at += 1,
                byte if byte != end => return None,
                _ => {}
            }
        }
        self.at += 1;
        Some(any)
    }

    /// What is always there and was not said, at the end of the object before.
    fn add(&mut self, shape: &Shape, said: u64, mut any: bool) {
        self.copy(self.at - 1);
        let known = shape.fields.iter().filter(|known| known.bit & !said != 0);
        for text in known.filter_map(|known| known.unsaid.as_deref()) {
            if any {
                self.out.push(b',');
            }
            self.out.extend_from_slice(text.as_bytes());
            any = true;
        }
    }

    /// Whether the value that begins here is as good as none.
    fn holds_nothing(&self, known: &Known) -> Option<bool> {
        let second = || self.text.get(self.at + 1).copied();
        Some(match self.peek()? {
            b'n' => true,
            _ if !known.vanishes => false,
            b'f' => true,
            b'0' => matches!(second()?, b',' | b'}'),
            b'"' => second()? == b'"',
            b'[' => second()? == b']',
            b'{' => second()? == b'}',
            _ => false,
        })
    }

    fn value(&mut self, field: &'static Field) -> Option<()> {
        let Some(message) = field.message() else { return self.skip() };
        match (field.many, self.peek()?) {
            (Many::One, _) => self.object(message),
            (Many::List, b'[') => {
                self.members(b']', |walk| walk.object(message).map(|()| true)).map(|_| ())
            }
            (Many::Map, b'{') => {
                let entry = |walk: &mut Self| walk.name().and_then(|_| walk.object(message));
                self.members(b'}', |walk| entry(walk).map(|()| true)).map(|_| ())
            }
            _ => self.skip(),
        }
    }

    /// The name of a member as it is written, and on to its value.
    fn name(&mut self) -> Option<&'a [u8]> {
        let begin = self.at + 1;
        if self.peek()? != b'"' {
            return None;
        }
        self.string()?;
        let end = self.at - 1;
        (self.peek()? == b':').then_some(())?;
        self.at += 1;
        self.text.get(begin..end)
    }

    /// Over a value, whatever it is.
    fn skip(&mut self) -> Option<()> {
        let mut deep = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    deep += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    deep = deep.checked_sub(1)?;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            if deep == 0 && self.text.get(self.at).is_none_or(|byte| b",]}".contains(byte)) {
                return Some(());
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..)?;
            let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            self.at += end + 1;
            if rest[end] == b'"' {
                return Some(());
            }
            // What an escape begins with.
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn copy(&mut self, end: usize) {
        self.out.extend_from_slice(&self.text[self.copied.min(end)..end]);
        self.copied = self.copied.max(end);
    }
}

/// The other way round: takes out of an object what says no more than that nobody said anything,
/// which is how it is held, whoever wrote it in which form.
pub fn strip(message: &'static Message, value: &mut Value) {
    let Value::Object(fields) = value else { return };
    if message.open {
        return;
    }
    let (shape, mut next) = (message.shape(), 0);
    fields.retain(|name, value| {
        let Some(known) = shape.find(name.as_bytes(), &mut next) else { return true };
        if let Some(below) = known.field.message() {
            match (known.field.many, &mut *value) {
                (Many::One, value) => strip(below, value),
                (Many::List, Value::Array(list)) => {
                    list.iter_mut().for_each(|one| strip(below, one));
                }
                (Many::Map, Value::Object(map)) => {
                    map.values_mut().for_each(|one| strip(below, one));
                }
                _ => {}
            }
        }
        !known.is_zero(value)
    });
}

impl Known {
    fn is_zero(&self, value: &Value) -> bool {
        let (many, kind) = (self.field.many, self.field.kind);
        match value {
            Value::Null => true,
            _ if self.field.pointer => false,
            // An empty list of managers has them forgotten.
            Value::Array(list) => {
                many == Many::List && list.is_empty() && !self.kept && self.name != "managedFields"
            }
            Value::Object(map) => {
                let empty = many == Many::Map && !self.kept
                    || many == Many::One && matches!(kind, Type::Message(_));
                empty && map.is_empty()
            }
            _ if many != Many::One => false,
            Value::String(text) => match kind {
                Type::String => text.is_empty(),
                // No bytes are other ones than none, where they are told.
                Type::Bytes => text.is_empty() && !self.field.always,
                Type::Quantity => text == "0",
                _ => false,
            },
            Value::Bool(said) => kind == Type::Bool && !said,
            Value::Number(number) => {
                let counts = matches!(kind, Type::Int | Type::Quantity | Type::IntOrString);
                counts && number.as_i64() == Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests;
