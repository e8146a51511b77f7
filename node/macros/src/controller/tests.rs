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

/// What is said of one function of a controller.
fn refused(function: TokenStream) -> String {
    refusal(quote! { "/chat" }, quote! { impl Chat { #function } })
}

#[test]
fn attributes_of_handlers_are_taken_away_and_others_stay() {
    let expanded = expand(
        quote! { "/chat", name = "chat" },
        quote! {
            impl Chat {
                #[connect]
                async fn hello(&self, socket: Socket) {}
                /// Says it.
                #[subscribe("say", "shout", regex = "^tell:")]
                #[inline]
                async fn say(&self, text: String) -> usize { text.len() }
                #[disconnect]
                fn gone(&self, reason: Reason) {}
                fn other(&mut self) {}
            }
        },
    );
    let text = expanded.unwrap().to_string();
    let (block, controller) = text.split_once("# [automatically_derived]").unwrap();
    for attribute in ["connect", "subscribe", "disconnect"] {
        assert!(!block.contains(attribute), "{block}");
    }
    assert!(block.contains("# [inline]") && block.contains("Says it."), "{block}");
    assert!(controller.contains(r#"Cow :: Borrowed ("^tell:")"#), "{controller}");
    assert!(controller.contains("inventory :: submit"), "{controller}");
}

#[test]
fn generic_controllers_are_not_discovered() {
    let expanded = expand(quote! {}, quote! { impl<T: Send> Chat<T> {} }).unwrap();
    assert!(!expanded.to_string().contains("submit"));
}

#[test]
fn misplaced_namespaces_are_refused() {
    let block = || quote! { impl Chat {} };
    let two = refusal(quote! { "/a", regex = "^/b" }, block());
    assert_eq!(two, "a controller has one namespace, or one pattern");
    let unknown = refusal(quote! { path = "/a" }, block());
    assert_eq!(unknown, "expected `namespace`, `regex` or `name`");
    let named = refusal(quote! { regex = "^/b", name = "b" }, block());
    assert_eq!(named, "namespaces of a pattern have no one name");
    let of_trait = refusal(quote! {}, quote! { impl Display for Chat {} });
    assert_eq!(of_trait, "a controller is an `impl` block of its own type");
}

#[test]
fn patterns_that_are_none_are_refused_where_they_stand() {
    let look_ahead = refusal(quote! { regex = "^/(?=a)" }, quote! { impl Chat {} });
    assert!(look_ahead.contains("look-around"), "{look_ahead}");
    let open = refused(quote! { #[subscribe(regex = "(")] fn on(&self) {} });
    assert!(open.contains("unclosed group"), "{open}");
}

#[test]
fn events_that_no_client_sends_are_refused() {
    let said = refused(quote! { #[subscribe("a", "disconnect")] fn on(&self) {} });
    assert_eq!(said, "a client sends no such event: use `#[disconnect]`");
    let nothing = refused(quote! { #[subscribe()] fn on(&self) {} });
    assert!(nothing.contains("which events?"), "{nothing}");
    let bare = refused(quote! { #[subscribe] fn on(&self) {} });
    assert!(bare.contains("which events?"), "{bare}");
}

#[test]
fn signatures_that_cannot_be_called_are_refused() {
    for (function, why) in [
        (quote! { #[connect] fn on() {} }, "a handler takes `&self`"),
        (quote! { #[connect] fn on(&mut self) {} }, "run beside each other"),
        (quote! { #[connect] fn on(self) {} }, "others need the instance"),
        (quote! { #[create] fn new(&self) -> Self {} }, "there is no `self`"),
        (quote! { #[subscribe("a")] fn on(&self, text: &str) {} }, "take it by value"),
        (quote! { #[subscribe("a")] fn on(&self, ack: Ack) {} }, "what the function returns"),
        (quote! { #[subscribe("a")] fn on(&self, of: impl Into<u8>) {} }, "which type this is"),
        (quote! { #[subscribe("a")] fn on<T>(&self, of: T) {} }, "which type this is"),
        (quote! { #[connect] #[disconnect] fn on(&self) {} }, "a handler is for one thing"),
        (quote! { #[connect("a")] fn on(&self) {} }, "unexpected token"),
    ] {
        let said = refused(function);
        assert!(said.contains(why), "{said}");
    }
    let twice = refused(quote! {
        #[create] fn new() -> Self {}
        #[create] fn other() -> Self {}
    });
    assert_eq!(twice, "a controller has one `#[create]`");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let block = quote! {
        impl Chat {
            #[connect] fn one() {}
            #[disconnect] fn two() {}
        }
    };
    let error = expand(quote! {}, block).err().unwrap();
    assert_eq!(error.into_iter().count(), 2);
}
