mod real;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn check(oid: u32, format: i16, bytes: impl AsRef<[u8]>, expected: Expect) {
    let Parameter { type_name, value } = decode(oid, format, Some(bytes.as_ref()));
    expected.assert_eq(&match value {
        ParameterValue::Null => format!("{type_name} null"),
        ParameterValue::Text(text) => format!("{type_name} {text}"),
        ParameterValue::Binary(bytes) => format!("{type_name} bytes {}", bytes.escape_ascii()),
    });
}

#[test]
fn the_table_is_in_order_and_closed() {
    assert!(types::TYPES.is_sorted_by(|(a, ..), (b, ..)| a < b));
    for (_, name, shape) in types::TYPES {
        if let Shape::Array(oid) | Shape::Vector(oid) | Shape::Range(oid) | Shape::Multirange(oid) = shape {
            assert!(types::find(*oid).is_some(), "{name}");
        }
    }
}

#[test]
fn text_is_what_was_sent() {
    check(23, 0, " 7", expect!["int4  7"]);
    check(0, 0, "x", expect!["unknown x"]);
    check(16_385, 0, "ä", expect!["unknown ä"]);
    check(25, 0, b"\xff", expect![[r"text bytes \xff"]]);
    assert_eq!(decode(23, 0, None), Parameter { type_name: "int4".into(), value: ParameterValue::Null });
    assert_eq!(type_name(1007), Some("_int4"));
    assert_eq!(type_name(1), None);
}

#[test]
fn bytea_is_bytes_in_either_format() {
    check(17, 1, b"\0\xff", expect![[r"bytea bytes \x00\xff"]]);
    check(17, 0, r"\x00fF 41", expect![[r"bytea bytes \x00\xffA"]]);
    check(17, 0, r"a\\b\000\377", expect![[r"bytea bytes a\\b\x00\xff"]]);
    check(17, 0, "", expect!["bytea bytes "]);
    // What the server refuses is shown as sent.
    check(17, 0, r"\x0", expect![[r"bytea \x0"]]);
    check(17, 0, r"a\9", expect![[r"bytea a\9"]]);
}

#[test]
fn what_is_no_value_of_its_type_stays_bytes() {
    check(23, 1, b"\0\0\x07", expect![[r"int4 bytes \x00\x00\x07"]]);
    check(23, 1, b"\0\0\0\0\x07", expect![[r"int4 bytes \x00\x00\x00\x00\x07"]]);
    check(25, 1, b"\xff", expect![[r"text bytes \xff"]]);
    check(0, 1, "x", expect!["unknown bytes x"]);
    check(2249, 1, "x", expect!["record bytes x"]);
    check(23, 2, "7", expect!["int4 bytes 7"]);
    check(3802, 1, b"\x02{}", expect![[r"jsonb bytes \x02{}"]]);
    // A count over what is there; another type within; seven dimensions; a first element's number beyond an int.
    check(
        1007,
        1,
        b"\0\0\0\x01\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\x01",
        expect![[
            r"_int4 bytes \x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x7f\xff\xff\xff\x00\x00\x00\x01"
        ]],
    );
    check(
        1007,
        1,
        b"\0\0\0\0\0\0\0\0\0\0\0\x19",
        expect![[r"_int4 bytes \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19"]],
    );
    check(
        1007,
        1,
        b"\0\0\0\x07\0\0\0\0\0\0\0\x17",
        expect![[r"_int4 bytes \x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x17"]],
    );
    check(1186, 1, b"", expect!["interval bytes "]);
}

#[test]
fn few_bytes_cannot_become_much_text() {
    // Numerics of 131 072 digits, from eight bytes each.
    let mut array =
        [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6, 0xa4][..], &10_000_u32.to_be_bytes(), &[0, 0, 0, 1]].concat();
    for _ in 0..10_000 {
        array.extend([0, 0, 0, 10, 0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1]);
    }
    let decoded = decode(1231, 1, Some(&array));
    assert!(matches!(decoded.value, ParameterValue::Binary(_)));
    let one = decode(1700, 1, array.get(24..34));
    assert!(matches!(one.value, ParameterValue::Text(text) if text.len() == 131_069), "one alone is printed");
}

#[test]
fn a_query_is_printed_without_recursion() {
    let nots = [&4096_u32.to_be_bytes()[..], &[2, 1].repeat(4095), b"\x01\0\0a\0"].concat();
    let text = format!("{}'a'", "!".repeat(4095));
    assert!(decode(3615, 1, Some(&nots)).value == ParameterValue::Text(text));
    let deeper = [&4097_u32.to_be_bytes()[..], &[2, 1].repeat(4096), b"\x01\0\0a\0"].concat();
    assert!(matches!(decode(3615, 1, Some(&deeper)).value, ParameterValue::Binary(_)));
}

fn any_type() -> impl Strategy<Value = u32> {
    prop_oneof![proptest::sample::select(types::TYPES).prop_map(|(oid, ..)| oid), any::<u32>()]
}

/// Bytes in which small numbers are frequent, so that counts and lengths fit now and then.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        (0_u32..9).prop_map(|number| number.to_be_bytes().to_vec()),
        any_type().prop_map(|number| number.to_be_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..9),
        Just(vec![0xff; 4]),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_bytes_panic(oid in any_type(), format in -1_i16..3, bytes in any_bytes()) {
        match decode(oid, format, Some(&bytes)).value {
            ParameterValue::Null => prop_assert!(false, "not NULL"),
            ParameterValue::Text(text) => prop_assert!(text.len() <= 8 * bytes.len() + 512 * 1024),
            ParameterValue::Binary(kept) => prop_assert!(oid == 17 || kept == bytes),
        }
    }

    #[test]
    fn no_array_panics(element in any_type(), array in any_type(), bytes in any_bytes()) {
        let head = [&1_u32.to_be_bytes()[..], &[0; 4], &element.to_be_bytes(), &bytes].concat();
        decode(array, 1, Some(&head));
    }

    #[test]
    fn any_float_is_read_back_the_same(bits in any::<u64>()) {
        for bits in [bits, bits & !0xf_ffff_ffff_ffff] {
            let value = f64::from_bits(bits);
            let ParameterValue::Text(text) = decode(701, 1, Some(&bits.to_be_bytes())).value else { panic!("text") };
            let read: f64 = text.parse().unwrap();
            prop_assert!(read.to_bits() == bits || value.is_nan() && read.is_nan(), "{text}");
        }
    }
}
