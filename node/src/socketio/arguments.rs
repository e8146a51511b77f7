//! Which Rust values are several arguments, and how several are read into one value.

use std::convert::Infallible;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{self, Impossible, Serializer};

use super::Elements;

/// How many arguments a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Nothing,
    One,
    Several,
}

impl Shape {
    pub(super) fn of(value: &(impl Serialize + ?Sized)) -> Self {
        match value.serialize(Probe) {
            Err(Probed(shape)) => shape,
            Ok(never) => match never {},
        }
    }
}

/// A serializer that learns a value's outermost shape and stops there.
struct Probe;

#[derive(Debug)]
struct Probed(Shape);

impl std::error::Error for Probed {}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shape of a value: {:?}", self.0)
    }
}

impl ser::Error for Probed {
    /// A value that does not get as far as telling its shape is one argument; encoding it then
    /// gives the error its place.
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self(Shape::One)
    }
}

type Compound = Impossible<Infallible, Probed>;

macro_rules! one_argument {
    ($($method:ident($($argument:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$ok, Probed> {
            Err(Probed(Shape::One))
        })*
    };
}

impl Serializer for Probe {
    type Ok = Infallible;
    type Error = Probed;
    type SerializeSeq = Compound;
    type SerializeTuple = Compound;
    type SerializeTupleStruct = Compound;
    type SerializeTupleVariant = Compound;
    type SerializeMap = Compound;
    type SerializeStruct = Compound;
    type SerializeStructVariant = Compound;

    one_argument! {
        serialize_bool(bool) -> Infallible;
        serialize_i8(i8) -> Infallible;
        serialize_i16(i16) -> Infallible;
        serialize_i32(i32) -> Infallible;
        serialize_i64(i64) -> Infallible;
        serialize_u8(u8) -> Infallible;
        serialize_u16(u16) -> Infallible;
        serialize_u32(u32) -> Infallible;
        serialize_u64(u64) -> Infallible;
        serialize_f32(f32) -> Infallible;
        serialize_f64(f64) -> Infallible;
        serialize_char(char) -> Infallible;
        serialize_str(&str) -> Infallible;
        serialize_bytes(&[u8]) -> Infallible;
        serialize_none() -> Infallible;
        serialize_unit_struct(&'static str) -> Infallible;
        serialize_unit_variant(&'static str, u32, &'static str) -> Infallible;
        serialize_seq(Option<usize>) -> Compound;
        serialize_map(Option<usize>) -> Compound;
        serialize_struct(&'static str, usize) -> Compound;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Compound;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Compound;
    }

    fn serialize_unit(self) -> Result<Infallible, Probed> {
        Err(Probed(Shape::Nothing))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound, Probed> {
        Err(Probed(Shape::Several))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Compound, Probed> {
        Err(Probed(Shape::Several))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _value: &T) -> Result<Infallible, Probed> {
        Err(Probed(Shape::One))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _value: &T,
    ) -> Result<Infallible, Probed> {
        Err(Probed(Shape::One))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<Infallible, Probed> {
        Err(Probed(Shape::One))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _value: &T) -> Result<Infallible, Probed> {
        Err(Probed(Shape::One))
    }
}

/// Reads arguments: a tuple takes several, anything else the first one.
pub(super) struct Arguments<'a> {
    elements: Elements<'a>,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(elements: Elements<'a>) -> Self {
        Self { elements }
    }

    fn next(&mut self) -> serde_json::Deserializer<serde_json::de::StrRead<'a>> {
        serde_json::Deserializer::from_str(self.elements.next().unwrap_or("null"))
    }
}

macro_rules! read_first {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(
            mut self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, serde_json::Error> {
            self.next().$method($($argument,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Arguments<'de> {
    type Error = serde_json::Error;

    read_first! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        visitor.visit_unit()
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        visitor.visit_seq(First { len, arguments: self })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        visitor.visit_seq(First { len, arguments: self })
    }
}

/// The first `len` arguments.
struct First<'a> {
    len: usize,
    arguments: Arguments<'a>,
}

impl<'de> SeqAccess<'de> for First<'de> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, serde_json::Error> {
        if self.len == 0 {
            return Ok(None);
        }
        self.len -= 1;
        seed.deserialize(&mut self.arguments.next()).map(Some)
    }
}
