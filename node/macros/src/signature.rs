//! What signatures of handlers and of exported functions have in common: what can be filled, and what cannot.

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::{
    Error, FnArg, GenericParam, PatType, Receiver, Result, ReturnType, Signature, Type, TypePath,
};

/// Refuses a receiver that is not `&self`; `who` else has the instance at the same time.
pub(crate) fn check_shared(receiver: &Receiver, who: &str) -> Result<()> {
    if receiver.mutability.is_some() && receiver.reference.is_some() {
        let why = format!(
            "{who} run beside each other: take `&self`, and keep what changes in a `Mutex`"
        );
        return Err(Error::new(receiver.span(), why));
    }
    if receiver.reference.is_none() || receiver.colon_token.is_some() {
        return Err(Error::new(receiver.span(), "take `&self`: others need the instance"));
    }
    Ok(())
}

/// Refuses types that a caller would have to choose: there is none who could.
pub(crate) fn check_generics(signature: &Signature) -> Result<()> {
    let of_types =
        |of: &&GenericParam| matches!(of, GenericParam::Type(_) | GenericParam::Const(_));
    match signature.generics.params.iter().find(of_types) {
        Some(generic) => Err(Error::new(generic.span(), "nothing says which type this is")),
        None => Ok(()),
    }
}

/// The parameters without the receiver.
pub(crate) fn parameters(signature: &Signature) -> impl Iterator<Item = &PatType> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    })
}

/// The type of a parameter, if it is one that can be filled.
pub(crate) fn fillable(parameter: &PatType) -> Result<Type> {
    let of = &*parameter.ty;
    let refused = |span: Span, why: &str| Err(Error::new(span, why));
    match of {
        Type::Reference(reference) => refused(
            reference.span(),
            "what a client sends is the function's own: take it by value, a `String` and not a `&str`",
        ),
        Type::ImplTrait(of) => refused(of.span(), "nothing says which type this is"),
        Type::Path(path) if is_named(path, "Ack") => {
            refused(path.span(), "the ack is what the function returns: its value, or its error")
        }
        _ => Ok(of.clone()),
    }
}

/// Whether it may fail, as far as its signature shows.
pub(crate) fn returns_result(signature: &Signature) -> bool {
    matches!(&signature.output, ReturnType::Type(_, of)
        if matches!(&**of, Type::Path(path) if is_named(path, "Result")))
}

fn is_named(path: &TypePath, name: &str) -> bool {
    path.path.segments.last().is_some_and(|last| last.ident == name)
}
