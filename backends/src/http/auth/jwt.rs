//! Tokens that a key signs and anybody can check: JSON Web Tokens in their compact form (RFC 7515,
//! RFC 7519) by ES256 (RFC 7518, 3.4), which upstream's service accounts may have as well as RS256
//! (kubernetes `pkg/serviceaccount/jwt.go`, `openidmetadata.go`).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a public key of P-256 has before its point, as PKIX has it (RFC 5480).
const PKIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key that signs tokens, and knows those it has signed.
#[derive(Debug)]
pub struct Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// The hash of the public key, so that who looks for the key by it has the key from elsewhere.
    id: String,
}

impl Key {
    /// From a private key of P-256.
    fn from_der(der: &PrivatePkcs8KeyDer<'_>) -> Result<Key, String> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &random)
            .map_err(|error| format!("it is no key of P-256 in PKCS #8 ({error})"))?;
        let hash = Sha256::new().chain_update(PKIX).chain_update(pair.public_key()).finalize();
        Ok(Key { pair, random, id: BASE64.encode(hash) })
    }

    /// A token with these claims; none if the machine has no randomness.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let [header, claims] = [&header, claims].map(|part| BASE64.encode(part.to_string()));
        let said = format!("{header}.{claims}");
        let signature = self.pair.sign(&self.random, said.as_bytes()).ok()?;
        Some(format!("{said}.{}", BASE64.encode(signature)))
    }

    /// What a token claims, if this key has signed it.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let (said, signature) = token.rsplit_once('.')?;
        let (header, claims) = said.split_once('.')?;
        let header: Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        // A header chooses neither another algorithm nor another key.
        let ours = header["alg"] == "ES256"
            && header.get("kid").is_none_or(|id| id == self.id.as_str())
            && header.get("crit").is_none();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        key.verify(said.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
        let claims = BASE64.decode(claims).ok()?;
        ours.then(|| serde_json::from_slice(&claims).ok()).flatten()
    }

    /// The public key as a set of those has it (RFC 7517).
    fn public(&self) -> Value {
        // After the octet that says it is not compressed (SEC 1, 2.3.3).
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| BASE64.encode(half));
        json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
               "x": x, "y": y})
    }

    /// Another number each time, for a token to be known by.
    pub fn random(&self) -> Option<[u8; 16]> {
        ring::rand::generate(&self.random).ok().map(|drawn| drawn.expose())
    }
}

/// The keys of one issuer: the first one signs, and what any of them has signed is good. So a new
/// one is put before the others, and an old one taken away when its tokens have ended (upstream's
/// `--service-account-signing-key-file` and `--service-account-key-file`).
#[derive(Debug)]
pub struct Keys {
    pub first: Key,
    before: Vec<Key>,
}

impl Keys {
    /// From private keys of P-256, in PKCS #8 as PEM, one after the other.
    pub fn from_pem(pem: &[u8]) -> Result<Keys, String> {
        let all = PrivatePkcs8KeyDer::pem_slice_iter(pem)
            .map(|der| der.map_err(|error| error.to_string()).and_then(|der| Key::from_der(&der)));
        let mut all = all.collect::<Result<Vec<_>, _>>()?.into_iter();
        let first = all.next().ok_or("there is no private key in PKCS #8 in it")?;
        Ok(Keys { first, before: all.collect() })
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.before)
    }

    /// What a token claims, if one of these has signed it.
    pub fn verify(&self, token: &str) -> Option<Value> {
        self.all().find_map(|key| key.verify(token))
    }

    /// The public ones (RFC 7517).
    pub fn set(&self) -> Value {
        json!({"keys": self.all().map(Key::public).collect::<Vec<_>>()})
    }
}

/// What a token claims, whoever has signed it.
pub fn claimed(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = BASE64.decode(claims).ok().filter(|_| parts.next().is_none())?;
    serde_json::from_slice(&bytes).ok()
}

/// The key that jwt.io shows for ES256: everybody has it.
#[cfg(test)]
pub const KNOWN: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2
OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r
1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G
-----END PRIVATE KEY-----
";

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Keys::from_pem(KNOWN.as_bytes()).expect("a key").first
    }

    /// The key of appendix A.3.1 of RFC 7515.
    const OTHER: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff
H1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp
7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt
-----END PRIVATE KEY-----
";

    #[test]
    fn what_a_former_key_signed_is_good_while_it_is_there() {
        let old = key().sign(&json!({"sub": "a"})).expect("a token");
        let both = Keys::from_pem(format!("{OTHER}{KNOWN}").as_bytes()).expect("two keys");
        let new = both.first.sign(&json!({"sub": "b"})).expect("a token");
        assert_eq!(both.verify(&old), Some(json!({"sub": "a"})));
        assert_eq!(both.verify(&new), Some(json!({"sub": "b"})));
        assert_eq!(both.set()["keys"].as_array().map(Vec::len), Some(2));
        let alone = Keys::from_pem(OTHER.as_bytes()).expect("one key");
        assert_eq!(alone.verify(&old), None);
        assert_eq!(alone.verify(&new), Some(json!({"sub": "b"})));
        assert!(Keys::from_pem(b"nothing").is_err());
    }

    /// What jwt.io signs with it.
    #[test]
    fn others_tokens_are_read() {
        let token = concat!(
            "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.",
            "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiYWRtaW4i",
            "OnRydWUsImlhdCI6MTUxNjIzOTAyMn0.",
            "tyh-VfuzIxCyGYDlkBA7DfyjrqmSHu6pQ2hoZuFqUSLPNY2N0mpHb3nk5K17",
            "HWP_3cYHBw7AhHale5wky6-sVA",
        );
        let claims = key().verify(token).expect("claims");
        assert_eq!(claims["name"], "John Doe");
        let set = Keys::from_pem(KNOWN.as_bytes()).expect("a key").set();
        assert_eq!(set["keys"][0]["kid"], "pA8PLil03HaoLfb_4I7Q15lVx5560MINl66Pkkat4cE");
        assert_eq!(set["keys"][0]["x"], "EVs_o5-uQbTjL3chynL4wXgUg2R9q9UU8I5mEovUf84");
        assert_eq!(set["keys"][0]["y"], "kGe5DgSIycKp8w9aJmoHhB1sB3QTugfnRWm5nU_TzsY");
    }

    #[test]
    fn what_was_changed_was_not_signed() {
        let key = key();
        let claims = json!({"sub": "a"});
        let token = key.sign(&claims).expect("a token");
        assert_eq!(key.verify(&token), Some(claims.clone()));
        assert_eq!(claimed(&token), Some(claims));
        let parts: Vec<&str> = token.split('.').collect();
        let [header, said, signature] = parts[..] else { panic!("three parts: {token}") };
        let none = BASE64.encode("{\"alg\":\"none\"}");
        let other = BASE64.encode("{\"sub\":\"b\"}");
        for forged in [
            format!("{none}.{said}.{signature}"),
            format!("{none}.{said}."),
            format!("{header}.{other}.{signature}"),
            format!("{header}.{said}.{}", BASE64.encode([0; 64])),
            format!("{header}.{said}"),
            format!("{token}.{signature}"),
        ] {
            assert_eq!(key.verify(&forged), None, "{forged}");
        }
    }
}
