//! Any serialisable value into a digest, without building its text.

use super::Object;
use kubesim_runtime::{Digest, Hasher};
use serde::Serialize;
use serde::ser::{self, Impossible};
use std::fmt::{self, Display};

/// Feeds the value's structure and leaves to the hasher, in serialisation order.
pub fn digest_of<T: Serialize + ?Sized>(value: &T, hasher: &mut Hasher) {
    // Kubernetes' types serialise without errors of their own; one would end the value early,
    // at the same place in every run.
    let _ = value.serialize(Feed(hasher));
}

impl Digest for Object {
    /// A stored object is identified by its version; one not stored yet is hashed whole.
    fn digest(&self, hasher: &mut Hasher) {
        hasher.u64(self.kind().number());
        hasher.str(&self.key.namespace);
        hasher.str(&self.key.name);
        self.uid.digest(hasher);
        hasher.u64(self.version);
    }
}

impl Object {
    /// The whole content: for writes, whose content no version identifies yet.
    pub fn digest_content(&self, hasher: &mut Hasher) {
        use super::Body;
        self.digest(hasher);
        digest_of(&*self.meta, hasher);
        if let Some(text) = self.managed.text() {
            hasher.str(text);
        }
        match &self.body {
            Body::Namespace { spec, status } => digest_of(&(&**spec, &**status), hasher),
            Body::Node { spec, status } => digest_of(&(&**spec, &**status), hasher),
            Body::Pod(pod) => digest_of(&(&**pod.spec(), &**pod.status()), hasher),
            Body::Service { spec, status } => digest_of(&(&**spec, &**status), hasher),
            Body::Deployment { spec, status } => digest_of(&(&**spec, &**status), hasher),
            Body::ReplicaSet { spec, status } => digest_of(&(&**spec, &**status), hasher),
            Body::Subnet { spec, status } => digest_of(&(&**spec, &**status), hasher),
            Body::Lease { spec } => digest_of(&**spec, hasher),
            Body::ConfigMap(whole) => digest_of(&**whole, hasher),
            Body::Event(whole) => digest_of(&**whole, hasher),
            Body::EndpointSlice(whole) => digest_of(&**whole, hasher),
            Body::Plain(plain) => digest_of(&(&plain.fields.0, &*plain.status), hasher),
        }
    }
}

impl Object {
    /// What a write of the status is about: the object, the version it was read at, the status.
    pub fn digest_status(&self, hasher: &mut Hasher) {
        use super::Body;
        self.digest(hasher);
        match &self.body {
            Body::Namespace { status, .. } => digest_of(&**status, hasher),
            Body::Node { status, .. } => digest_of(&**status, hasher),
            Body::Pod(pod) => digest_of(&**pod.status(), hasher),
            Body::Service { status, .. } => digest_of(&**status, hasher),
            Body::Deployment { status, .. } => digest_of(&**status, hasher),
            Body::ReplicaSet { status, .. } => digest_of(&**status, hasher),
            Body::Subnet { status, .. } => digest_of(&**status, hasher),
            Body::Plain(plain) => digest_of(&*plain.status, hasher),
            Body::Lease { .. } | Body::ConfigMap(_) | Body::Event(_) | Body::EndpointSlice(_) => {
                self.digest_content(hasher);
            }
        }
    }
}

struct Feed<'a>(&'a mut Hasher);

#[derive(Debug)]
struct Failed;
impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value refused to be serialised")
    }
}
impl std::error::Error for Failed {}
impl ser::Error for Failed {
    fn custom<T: Display>(_: T) -> Self {
        Failed
    }
}

macro_rules! leaf {
    ($($method:ident($type:ty)),*) => {
        $(fn $method(self, v: $type) -> Result<(), Failed> { self.0.u64(v as u64); Ok(()) })*
    };
}

impl<'a> ser::Serializer for Feed<'a> {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Impossible<(), Failed>;
    type SerializeTupleVariant = Impossible<(), Failed>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), Failed>;

    leaf!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_char(char)
    );
    fn serialize_f32(self, v: f32) -> Result<(), Failed> {
        self.0.u32(v.to_bits());
        Ok(())
    }
    fn serialize_f64(self, v: f64) -> Result<(), Failed> {
        self.0.u64(v.to_bits());
        Ok(())
    }
    fn serialize_str(self, v: &str) -> Result<(), Failed> {
        self.0.str(v);
        Ok(())
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<(), Failed> {
        self.0.bytes(v);
        Ok(())
    }
    fn serialize_none(self) -> Result<(), Failed> {
        self.0.u64(0);
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failed> {
        self.0.u64(1);
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Failed> {
        self.serialize_none()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Failed> {
        self.serialize_none()
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Failed> {
        self.0.u32(index);
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        self.0.u32(index);
        value.serialize(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, Failed> {
        self.0.u64(len.unwrap_or(usize::MAX) as u64);
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, Failed> {
        Ok(self)
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Failed> {
        Err(Failed)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Failed> {
        Err(Failed)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Self, Failed> {
        self.0.u64(len.unwrap_or(usize::MAX) as u64);
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Failed> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Failed> {
        Err(Failed)
    }
}

impl ser::SerializeSeq for Feed<'_> {
    type Ok = ();
    type Error = Failed;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        value.serialize(Feed(self.0))
    }
    fn end(self) -> Result<(), Failed> {
        Ok(())
    }
}

impl ser::SerializeTuple for Feed<'_> {
    type Ok = ();
    type Error = Failed;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        value.serialize(Feed(self.0))
    }
    fn end(self) -> Result<(), Failed> {
        Ok(())
    }
}

impl ser::SerializeMap for Feed<'_> {
    type Ok = ();
    type Error = Failed;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        key.serialize(Feed(self.0))
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        value.serialize(Feed(self.0))
    }
    fn end(self) -> Result<(), Failed> {
        Ok(())
    }
}

impl ser::SerializeStruct for Feed<'_> {
    type Ok = ();
    type Error = Failed;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        self.0.str(key);
        value.serialize(Feed(self.0))
    }
    fn end(self) -> Result<(), Failed> {
        Ok(())
    }
}
