//! What is JSON and what is not, held against `serde_json`, and what is found in it.

use proptest::prelude::*;

use super::*;

fn nested(depth: u32) -> String {
    let half = depth as usize / 2;
    let odd = depth as usize % 2;
    let open = "[".repeat(odd) + &r#"{"a":["#.repeat(half);
    open + &"]}".repeat(half) + &"]".repeat(odd)
}

#[test]
fn json_is_accepted() {
    for text in [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "10",
        "-1.5",
        "1e9",
        "1E+9",
        "0.1e-9",
        "1e999",
        "\"\"",
        r#""a\"\\\/\b\f\n\r\tA\u00e9""#,
        r#""\ud83d\ude00""#,
        r#""\ud83d""#,
        "\"é😀\u{7f}\"",
        "[]",
        " [ ] ",
        "{}",
        "{ }",
        "[1,[2,{}],\"3\"]",
        r#"{"a":1,"b":{"c":[]},"a":null}"#,
        "\t[\r\n1 , 2\n]",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "{text}");
    }
}

#[test]
fn other_text_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "nulll",
        "truefalse",
        "True",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".1",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "\"",
        "\"a",
        "'a'",
        "\"\\\"",
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        "\"\n\"",
        "\"\t\"",
        "\"\0\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{a:1}",
        "{1:1}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{"a":1]"#,
        r#"{"a" 1}"#,
        "1 2",
        "[] []",
        "[]]",
        "\u{feff}[]",
        "[\u{a0}]",
        "[\u{b}]",
        "// a\n1",
    ] {
        assert_eq!(check(text), Err(ProtocolError::InvalidPayload), "{text}");
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_err(), "{text}");
    }
}

#[test]
fn depth_is_bounded_where_serde_json_stops() {
    assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(ProtocolError::PayloadTooDeep));
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH + 1)).is_err());
    assert_eq!(check(&"[".repeat(1_000_000)), Err(ProtocolError::PayloadTooDeep));
    assert_eq!(check(&r#"{"a":"#.repeat(1_000_000)), Err(ProtocolError::PayloadTooDeep));
}

#[test]
fn wide_values_are_not_deep() {
    let text = format!("[{}[]]", "[],{\"a\":[]},".repeat(1_000));
    assert_eq!(check(&text), Ok(()));
}

fn numbers(text: &str) -> Vec<(usize, &str)> {
    let found = placeholders(text).unwrap();
    found.into_iter().map(|placeholder| (placeholder.number, &text[placeholder.at])).collect()
}

#[test]
fn placeholders_are_found_anywhere() {
    assert_eq!(numbers(r#"[{"_placeholder":true,"num":3}]"#), [(3, "3")]);
    let nested =
        r#"["a,{",{"b":[{ "num" : 1 , "_placeholder" : true }]},{"_placeholder":true,"num":0}]"#;
    assert_eq!(numbers(nested), [(1, "1"), (0, "0")]);
    assert_eq!(numbers(r#"{"_placeholder":true,"num":1.0,"more":[1,{}]}"#), [(1, "1.0")]);
    assert_eq!(numbers(r#"{"\u005fplaceholder":true,"n\u0075m":2}"#), [(2, "2")]);
    assert_eq!(
        numbers(r#"{"num":4,"a":{"_placeholder":true,"num":5},"_placeholder":true}"#),
        [(4, "4"), (5, "5")]
    );
}

#[test]
fn other_objects_are_no_placeholders() {
    for text in [
        r#"{"_placeholder":false,"num":0}"#,
        r#"{"_placeholder":1,"num":0}"#,
        r#"{"_placeholder":"true","num":0}"#,
        r#"{"_placeholder":[true],"num":0}"#,
        r#"["_placeholder",true,"num",0]"#,
        r#"{"a":"_placeholder","b":true,"num":0}"#,
        r#""{\"_placeholder\":true,\"num\":0}""#,
    ] {
        assert_eq!(numbers(text), [], "{text}");
    }
}

#[test]
fn last_of_equal_keys_counts() {
    assert_eq!(numbers(r#"{"_placeholder":true,"num":0,"_placeholder":false}"#), []);
    assert_eq!(numbers(r#"{"num":0,"_placeholder":true,"num":1}"#), [(1, "1")]);
    let no_number = placeholders(r#"{"num":0,"_placeholder":true,"num":"1"}"#);
    assert_eq!(no_number, Err(ProtocolError::IllegalPlaceholder));
}

#[test]
fn strings_are_unquoted() {
    assert_eq!(unquote(r#""a\"\\\/\b\f\n\r\t\u0041""#), "a\"\\/\u{8}\u{c}\n\r\tA");
    assert_eq!(unquote(r#""\ud83d\ude00é\u00e9""#), "😀éé");
    assert_eq!(unquote(r#""\ude00\ud83d""#), "\u{fffd}\u{fffd}");
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_accepted(value in any_json()) {
        prop_assert_eq!(check(&value.to_string()), Ok(()));
        prop_assert_eq!(check(&serde_json::to_string_pretty(&value).unwrap()), Ok(()));
    }

    #[test]
    fn judgement_is_that_of_serde_json(text in r#"[\[\]{}",:0-9eE.+\-\\u a-ftrnl]{0,24}"#) {
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(check(&text).is_ok(), theirs, "{}", text);
    }

    #[test]
    fn strings_are_unquoted_as_serde_json_does(string in any::<String>()) {
        prop_assert_eq!(unquote(&serde_json::to_string(&string).unwrap()), string);
    }

    #[test]
    fn walkers_take_any_text(text in any::<String>(), start in 0_usize..64) {
        if text.is_char_boundary(start) {
            let end = end_of_value(&text, start);
            prop_assert!(end >= start && text.is_char_boundary(end));
        }
        if let Ok(found) = placeholders(&text) {
            renumber(&text, &found, |number| number);
        }
        unquote(&text);
    }
}
