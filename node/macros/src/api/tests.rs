//! What misuse is told, and that the attributes are gone.

use proc_macro2::TokenStream;
use quote::quote;

use super::expand;

fn refusal(arguments: TokenStream, block: TokenStream) -> String {
    match expand(arguments, block) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

/// What is said of one item of an API.
fn refused(item: TokenStream) -> String {
    refusal(quote! {}, quote! { impl MyApi { #item } })
}

#[test]
fn exports_are_added_by_their_names_and_the_rest_stays_as_it_is() {
    let expanded = expand(
        quote! {},
        quote! {
            impl<T: Clock> MyApi<T> {
                #[export]
                pub const VALUE: u8 = 7;
                const HIDDEN: u8 = 8;
                #[export("sayHello")]
                #[inline]
                async fn say_hello(&self, r#type: String) {}
                fn helper(&mut self, text: &str) {}
            }
        },
    );
    let text = expanded.unwrap().to_string();
    let (block, conversion) = text.split_once("# [automatically_derived]").unwrap();
    assert!(!block.contains("export") && block.contains("# [inline]"), "{block}");
    assert!(block.contains("HIDDEN") && block.contains("helper"), "{block}");
    let head = "impl < T : Clock > :: core :: convert :: From < MyApi < T > >";
    assert!(conversion.contains(head), "{conversion}");
    for added in [r#"constant ("VALUE""#, r#""sayHello""#, r#"told ("type")"#] {
        assert!(conversion.contains(added), "{added}: {conversion}");
    }
    assert!(!conversion.contains("HIDDEN") && !conversion.contains("helper"), "{conversion}");
}

#[test]
fn attribute_stands_alone_on_an_impl_of_its_own_type() {
    let named = refusal(quote! { "myApi" }, quote! { impl MyApi {} });
    assert!(named.contains("the name is given where it is registered"), "{named}");
    let of_trait = refusal(quote! {}, quote! { impl Display for MyApi {} });
    assert_eq!(of_trait, "an API is an `impl` block of its own type");
    let nothing = refused(quote! { fn sum() {} });
    assert!(nothing.contains("mark functions and constants with `#[export]`"), "{nothing}");
    assert!(refusal(quote! {}, quote! { mod my_api {} }).contains("expected `impl`"));
}

#[test]
fn names_that_clients_cannot_use_are_refused() {
    for (item, why) in [
        (quote! { #[export] fn _private() {} }, "are not exported"),
        (quote! { #[export("_sum")] fn sum() {} }, "are not exported"),
        (quote! { #[export] fn on() {} }, "an `on` and an `off` of their own"),
        (quote! { #[export("")] const A: u8 = 1; }, "no name"),
        (quote! { #[export("a\n")] const A: u8 = 1; }, "a control character"),
        (quote! { #[export(7)] const A: u8 = 1; }, "nameForClients"),
        (quote! { #[export = "a"] const A: u8 = 1; }, "nameForClients"),
        (quote! { #[export] #[export("b")] const A: u8 = 1; }, "it is exported once"),
        (quote! { #[export] const A: u8 = 1; #[export("A")] fn a() {} }, "`A` is exported twice"),
    ] {
        let said = refused(item);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn signatures_that_cannot_be_called_are_refused() {
    for (function, why) in [
        (quote! { #[export] fn f(&mut self) {} }, "calls run beside each other"),
        (quote! { #[export] fn f(self) {} }, "others need the instance"),
        (quote! { #[export] fn f(text: &str) {} }, "take it by value"),
        (quote! { #[export] fn f(ack: Ack) {} }, "what the function returns"),
        (quote! { #[export] fn f(of: impl Into<u8>) {} }, "which type this is"),
        (quote! { #[export] fn f<T>(of: T) {} }, "which type this is"),
        (quote! { #[export] fn f((a, b): (u8, u8)) {} }, "an argument travels by its name"),
        (quote! { #[export] fn f(_: u8) {} }, "an argument travels by its name"),
        (quote! { #[export] fn f(__stack: String) {} }, "what api.io's client sends itself"),
    ] {
        let said = refused(function);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let block = quote! {
        impl MyApi {
            #[export] fn one(self) {}
            #[export] fn _two() {}
        }
    };
    let error = expand(quote! {}, block).err().unwrap();
    assert_eq!(error.into_iter().count(), 2);
}
