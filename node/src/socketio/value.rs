//! Payloads from and to Rust types, with binary anywhere inside them.

use std::cell::RefCell;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{self, DeserializeOwned, Deserializer};
use serde::ser::{self, SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::arguments::{Arguments, Shape};
use super::javascript::write_json;
use super::{Elements, Payload, ProtocolError, json};

/// Bytes that travel as an attachment, wherever in a value they stand.
///
/// Can be (de)serialised by [`to_payload`], [`from_event`] and [`from_ack`] only, which have
/// somewhere to put them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Binary(pub Bytes);

/// One argument that is kept as the text and bytes it came as, to be passed on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    json: ByteString,
    /// Those that the text's placeholders name, by number.
    attachments: Vec<Bytes>,
}

/// Encodes an event, or (without a name) an ack. A tuple or an array is several arguments, `()`
/// is none, anything else one.
pub fn to_payload(
    event: Option<&str>,
    args: &(impl Serialize + ?Sized),
) -> Result<Payload, serde_json::Error> {
    let shape = {
        // Nothing that the value holds may be attached while its shape is looked at.
        let _scope = Scope::enter(None);
        Shape::of(args)
    };
    let mut text = Vec::with_capacity(64);
    if let Some(name) = event {
        text.push(b'[');
        serde_json::to_writer(&mut text, name)?;
    }
    let start = text.len();
    let encode = |text: &mut Vec<u8>| write_json(text, args);
    let attachments = match shape {
        Shape::Nothing => {
            text.extend_from_slice(if event.is_some() { b"]" } else { b"[]" });
            Vec::new()
        }
        Shape::One => {
            text.push(if event.is_some() { b',' } else { b'[' });
            let attachments = gather(|| encode(&mut text))?;
            text.push(b']');
            attachments
        }
        Shape::Several => {
            let attachments = gather(|| encode(&mut text))?;
            join_arrays(&mut text, start);
            attachments
        }
    };
    let json = ByteString::try_from(text).map_err(ser::Error::custom)?;
    Ok(Payload { json, attachments })
}

/// Makes one array of `["msg"` and, from `start`, `[1,2]`.
fn join_arrays(text: &mut Vec<u8>, start: usize) {
    let nothing_before = start == 0;
    let nothing_behind = text.len() == start + b"[]".len();
    if nothing_before {
        return;
    }
    if nothing_behind {
        text.truncate(start);
        text.push(b']');
    } else {
        text[start] = b',';
    }
}

/// Reads an event's arguments, without its name. A tuple takes several, anything else the first
/// one, `()` none. An argument that is missing is read as `null`; surplus ones are passed over.
pub fn from_event<'a, T: Deserialize<'a>>(payload: &'a Payload) -> Result<T, serde_json::Error> {
    from_elements(payload, payload.args())
}

/// Reads an ack's arguments, as [`from_event`] reads an event's.
pub fn from_ack<'a, T: Deserialize<'a>>(payload: &'a Payload) -> Result<T, serde_json::Error> {
    from_elements(payload, payload.elements())
}

/// Reads one element of a payload.
pub fn from_element<T: DeserializeOwned>(
    payload: &Payload,
    element: &str,
) -> Result<T, serde_json::Error> {
    let _scope = Scope::enter(Some(Attached::Reading(payload.clone())));
    serde_json::from_str(element)
}

fn from_elements<'a, T: Deserialize<'a>>(
    payload: &'a Payload,
    elements: Elements<'a>,
) -> Result<T, serde_json::Error> {
    let _scope = Scope::enter(Some(Attached::Reading(payload.clone())));
    T::deserialize(Arguments::new(elements))
}

thread_local! {
    /// The attachments of the payload that this thread is encoding or reading. Serde's traits
    /// leave no other way to reach them from inside a derived type.
    static ATTACHED: RefCell<Option<Attached>> = const { RefCell::new(None) };
}

enum Attached {
    Gathering(Vec<Bytes>),
    Reading(Payload),
}

/// Puts back what was there before, so that calls may nest and a panic leaves nothing behind.
struct Scope(Option<Attached>);

impl Scope {
    fn enter(attached: Option<Attached>) -> Self {
        Self(ATTACHED.replace(attached))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        ATTACHED.set(self.0.take());
    }
}

fn gather(
    encode: impl FnOnce() -> Result<(), serde_json::Error>,
) -> Result<Vec<Bytes>, serde_json::Error> {
    let _scope = Scope::enter(Some(Attached::Gathering(Vec::new())));
    encode()?;
    match ATTACHED.take() {
        Some(Attached::Gathering(attachments)) => Ok(attachments),
        Some(Attached::Reading(_)) | None => Err(ser::Error::custom(OUTSIDE)),
    }
}

/// Adds attachments to the payload that is being encoded; returns the first one's number.
fn attach<E: ser::Error>(attachments: &[Bytes]) -> Result<usize, E> {
    ATTACHED.with_borrow_mut(|attached| match attached {
        Some(Attached::Gathering(gathered)) => {
            let first = gathered.len();
            gathered.extend_from_slice(attachments);
            Ok(first)
        }
        Some(Attached::Reading(_)) | None => Err(E::custom(OUTSIDE)),
    })
}

/// Looks at the payload that is being read.
fn reading<R, E: de::Error>(look: impl FnOnce(&Payload) -> Result<R, E>) -> Result<R, E> {
    ATTACHED.with_borrow(|attached| match attached {
        Some(Attached::Reading(payload)) => look(payload),
        Some(Attached::Gathering(_)) | None => Err(E::custom(OUTSIDE)),
    })
}

const OUTSIDE: &str = "binary and raw arguments exist inside payloads only";

#[derive(Serialize, Deserialize)]
struct Placeholder {
    _placeholder: bool,
    num: usize,
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let num = attach(std::slice::from_ref(&self.0))?;
        let mut placeholder = serializer.serialize_struct("Binary", 2)?;
        placeholder.serialize_field("_placeholder", &true)?;
        placeholder.serialize_field("num", &num)?;
        placeholder.end()
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let placeholder = Placeholder::deserialize(deserializer)?;
        if !placeholder._placeholder {
            return Err(de::Error::custom("not a binary attachment"));
        }
        reading(|payload| match payload.attachments.get(placeholder.num) {
            Some(bytes) => Ok(Self(bytes.clone())),
            None => Err(de::Error::custom("a placeholder without its attachment")),
        })
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Raw {
    /// Checks one JSON value that comes from outside, and its placeholders, if there are
    /// attachments.
    pub fn parse(json: ByteString, attachments: Vec<Bytes>) -> Result<Self, ProtocolError> {
        json::check(&json)?;
        if !attachments.is_empty() {
            let found = json::placeholders(&json)?;
            if found.iter().any(|placeholder| placeholder.number >= attachments.len()) {
                return Err(ProtocolError::IllegalPlaceholder);
            }
        }
        Ok(Self { json, attachments })
    }

    /// One element of a payload, with those of its attachments that it names, numbered anew.
    pub(super) fn extract(json: ByteString, attachments: &[Bytes]) -> Self {
        if attachments.is_empty() {
            return Self { json, attachments: Vec::new() };
        }
        let found = json::placeholders(&json).unwrap_or_default();
        let mut used: Vec<usize> = Vec::new();
        for placeholder in &found {
            if !used.contains(&placeholder.number) {
                used.push(placeholder.number);
            }
        }
        let new_number = |old| used.iter().position(|number| *number == old).unwrap_or(old);
        let json = if used.iter().copied().eq(0..used.len()) {
            json
        } else {
            json::renumber(&json, &found, new_number).into()
        };
        let attachments = used.iter().filter_map(|number| attachments.get(*number)).cloned();
        Self { json, attachments: attachments.collect() }
    }

    /// The JSON value.
    pub fn json(&self) -> &str {
        &self.json
    }

    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// An event whose only argument this is.
    pub fn into_event(self, name: &str) -> Payload {
        Payload::event(name, &self.json, self.attachments)
    }

    /// An ack whose only argument this is.
    pub fn into_ack(self) -> Payload {
        Payload::ack(&self.json, self.attachments)
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let renumbered;
        let mut text = &*self.json;
        if !self.attachments.is_empty() {
            let first = attach(&self.attachments)?;
            if first > 0 {
                let found = json::placeholders(text).map_err(ser::Error::custom)?;
                renumbered = json::renumber(text, &found, |number| first + number);
                text = &renumbered;
            }
        }
        let raw: &RawValue = serde_json::from_str(text).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        reading(|payload| Ok(payload.raw(raw.get())))
    }
}

#[cfg(test)]
mod tests {
    use serde::ser::Error as _;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Upload {
        name: String,
        parts: Vec<Binary>,
    }

    fn upload() -> Upload {
        Upload { name: "a".into(), parts: vec![binary("x"), binary("y")] }
    }

    fn binary(text: &'static str) -> Binary {
        Binary(Bytes::from_static(text.as_bytes()))
    }

    fn encoded(event: Option<&str>, args: &(impl Serialize + ?Sized)) -> String {
        to_payload(event, args).unwrap().json.to_string()
    }

    fn event(json: &str, attachments: &[&'static str]) -> Payload {
        let attachments = attachments.iter().map(|text| Bytes::from_static(text.as_bytes()));
        Payload::parse(json.into(), attachments.collect()).unwrap()
    }

    #[test]
    fn tuples_and_arrays_are_several_arguments() {
        assert_eq!(encoded(Some("a"), &(1, "b")), r#"["a",1,"b"]"#);
        assert_eq!(encoded(Some("a"), &[1, 2]), r#"["a",1,2]"#);
        assert_eq!(encoded(Some("a"), &([0; 0],)), r#"["a",[]]"#);
        assert_eq!(encoded(Some("a"), &[0; 0]), r#"["a"]"#);
        assert_eq!(encoded(None, &(1, "b")), r#"[1,"b"]"#);
        assert_eq!(encoded(None, &[0; 0]), "[]");
    }

    #[test]
    fn anything_else_is_one_argument() {
        assert_eq!(encoded(Some("a"), &vec![1, 2]), r#"["a",[1,2]]"#);
        assert_eq!(encoded(Some("a"), "b"), r#"["a","b"]"#);
        assert_eq!(encoded(Some("a"), &None::<i32>), r#"["a",null]"#);
        assert_eq!(encoded(Some("a"), &json!({"b": 1})), r#"["a",{"b":1}]"#);
        assert_eq!(encoded(None, &json!([1])), "[[1]]");
    }

    #[test]
    fn unit_is_no_argument() {
        assert_eq!(encoded(Some("a\"b"), &()), r#"["a\"b"]"#);
        assert_eq!(encoded(None, &()), "[]");
    }

    #[test]
    fn arguments_are_read_into_what_is_asked_for() {
        let payload = event(r#"["a",1,"b",null]"#, &[]);
        assert_eq!(from_event::<(u8, String)>(&payload).unwrap(), (1, "b".into()));
        assert_eq!(from_event::<u8>(&payload).unwrap(), 1);
        assert_eq!(from_event::<Value>(&payload).unwrap(), json!(1));
        assert_eq!(from_event::<(u8, &str)>(&payload).unwrap(), (1, "b"));
        from_event::<()>(&payload).unwrap();
        from_event::<String>(&payload).unwrap_err();
    }

    #[test]
    fn missing_arguments_are_null() {
        let payload = event(r#"["a",1]"#, &[]);
        assert_eq!(from_event::<(u8, Option<u8>)>(&payload).unwrap(), (1, None));
        assert_eq!(from_event::<(u8, Value)>(&payload).unwrap(), (1, Value::Null));
        from_event::<(u8, u8)>(&payload).unwrap_err();
        let empty = event(r#"["a"]"#, &[]);
        assert_eq!(from_event::<Option<u8>>(&empty).unwrap(), None);
        from_event::<()>(&empty).unwrap();
    }

    #[test]
    fn acks_have_no_name() {
        let payload = event(r#"[1,"b"]"#, &[]);
        assert_eq!(from_ack::<(u8, String)>(&payload).unwrap(), (1, "b".into()));
        assert_eq!(
            from_ack::<Option<u8>>(&Payload { json: "[]".into(), ..payload }).unwrap(),
            None
        );
    }

    #[test]
    fn binary_travels_as_attachments_from_anywhere() {
        let payload = to_payload(Some("a"), &(binary("z"), upload())).unwrap();
        let text = r#"["a",{"_placeholder":true,"num":0},{"name":"a","parts":[{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]}]"#;
        assert_eq!(payload.json, text);
        assert_eq!(payload.attachments, ["z", "x", "y"]);
        let (first, second): (Binary, Upload) = from_event(&payload).unwrap();
        assert_eq!((first, second), (binary("z"), upload()));
    }

    #[test]
    fn binary_outside_of_a_payload_is_an_error() {
        serde_json::to_string(&binary("x")).unwrap_err();
        serde_json::from_str::<Binary>(r#"{"_placeholder":true,"num":0}"#).unwrap_err();
        let payload = event(r#"["a",{"_placeholder":true,"num":0}]"#, &[]);
        from_event::<Binary>(&payload).unwrap_err();
    }

    #[test]
    fn raw_arguments_pass_unchanged() {
        let payload = event(r#"["a",{ "b":1.00,"c":"\ud83d"},[2] ]"#, &[]);
        let (first, second): (Raw, Raw) = from_event(&payload).unwrap();
        assert_eq!(encoded(Some("m"), &(second, first)), r#"["m",[2],{ "b":1.00,"c":"\ud83d"}]"#);
    }

    #[test]
    fn raw_argument_shares_the_text_it_came_in() {
        let payload = event(r#"["a",{"b":1}]"#, &[]);
        let raw: Raw = from_event(&payload).unwrap();
        assert_eq!(raw.json().as_ptr(), payload.args().next().unwrap().as_ptr());
    }

    #[test]
    fn raw_argument_takes_only_its_own_attachments() {
        let text = r#"["a",{"_placeholder":true,"num":0},[{"num":2,"_placeholder":true},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}],3]"#;
        let payload = event(text, &["x", "y", "z"]);
        let (_, raw, three): (Raw, Raw, Raw) = from_event(&payload).unwrap();
        let renumbered = r#"[{"num":0,"_placeholder":true},{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#;
        assert_eq!(raw.json(), renumbered);
        assert_eq!(raw.attachments(), ["z", "y"]);
        assert!(three.attachments().is_empty());
    }

    #[test]
    fn raw_arguments_are_renumbered_beside_others() {
        let payload = event(r#"["a",{"_placeholder":true,"num":0}]"#, &["x"]);
        let raw: Raw = from_event(&payload).unwrap();
        let both = to_payload(None, &(binary("y"), &raw, &raw)).unwrap();
        let text = r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]"#;
        assert_eq!(both.json, text);
        assert_eq!(both.attachments, ["y", "x", "x"]);
    }

    #[test]
    fn payload_may_be_encoded_while_another_one_is() {
        struct Nested;
        impl Serialize for Nested {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = to_payload(None, &binary("inner")).map_err(S::Error::custom)?;
                assert_eq!(inner.attachments, ["inner"]);
                binary("outer").serialize(serializer)
            }
        }
        let payload = to_payload(None, &(Nested, binary("last"))).unwrap();
        assert_eq!(payload.attachments, ["outer", "last"]);
    }
}
