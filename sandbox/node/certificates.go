package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validity = 365 * 24 * time.Hour

// certificate is one to make: it serves both as a server's and as a client's.
type certificate struct {
	Name          string   `json:"name"` // of the files: NAME.crt, NAME.key
	CommonName    string   `json:"common_name"`
	Organizations []string `json:"organizations"`
	DNSNames      []string `json:"dns_names"`
	IPs           []net.IP `json:"ips"`
}

type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

// certificates writes ca.crt, ca.key, sa.key (service account tokens) and a
// pair for each certificate of the JSON list in spec.
func certificates(dir string, spec io.Reader) error {
	var wanted []certificate
	if err := json.NewDecoder(spec).Decode(&wanted); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	root, err := newAuthority(dir)
	if err != nil {
		return err
	}
	for _, one := range wanted {
		if err := root.issue(dir, one); err != nil {
			return fmt.Errorf("certificate %s: %w", one.Name, err)
		}
	}
	key, err := newKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", public, 0o644)
}

func newAuthority(dir string) (*authority, error) {
	key, err := newKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "towline sandbox"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	signed, err := sign(filepath.Join(dir, "ca.crt"), template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &authority{key: key, certificate: signed}, nil
}

func (a *authority) issue(dir string, one certificate) error {
	key, err := newKey(filepath.Join(dir, one.Name+".key"))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: one.CommonName, Organization: one.Organizations},
		DNSNames:    one.DNSNames,
		IPAddresses: one.IPs,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	_, err = sign(filepath.Join(dir, one.Name+".crt"), template, a.certificate, key.Public(), a.key)
	return err
}

func sign(path string, template, parent *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // clocks differ a little
	template.NotAfter = time.Now().Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(path, "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "EC PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
