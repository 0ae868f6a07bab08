package environ

import (
	"strings"
	"testing"
)

// The client goes by the same domains (dns_domain): what it asks for is to be permitted.
func TestTheClustersDomainIsAmongTheSearchDomains(t *testing.T) {
	for search, domain := range map[string]string{
		"shop.svc.cluster.local svc.cluster.local cluster.local": "cluster.local",
		"shop.svc.k8s.corp. svc.k8s.corp. k8s.corp. corp":        "k8s.corp",
		"svc.k8s.corp":         "k8s.corp",
		"corp.example example": "cluster.local",
		"":                     "cluster.local",
	} {
		if found := ClusterDomain(strings.Fields(search)); found != domain {
			t.Errorf("%q: %s", search, found)
		}
	}
}
