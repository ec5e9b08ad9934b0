// grpc-client runs one case after another against the echo server of tests/support/echo.py and
// prints what grpc-go saw, one line a case, without anything that differs from run to run.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const service = "/byre.test.Echo/"

var (
	target    = flag.String("target", "", "what to dial: HOST:PORT or unix:///PATH")
	authority = flag.String("authority", "", "the :authority, grpc-go's choice by default")
	caFile    = flag.String("ca", "", "PEM file: speak TLS and trust this authority")
	certFile  = flag.String("cert", "", "PEM file: the client's certificate")
	keyFile   = flag.String("key", "", "PEM file: its key")
	timeout   = flag.Duration("timeout", 60*time.Second, "for one case")
)

// raw passes messages as they are.
type raw struct{}

func (raw) Name() string                      { return "proto" }
func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }
func (raw) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func main() {
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		names = defaults
	}
	connection, err := dial()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer connection.Close()
	for _, name := range names {
		run, ok := cases[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such case:", name)
			os.Exit(2)
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		for _, line := range run(ctx, &client{connection}) {
			fmt.Printf("%s: %s\n", name, line)
		}
		cancel()
	}
}

func dial() (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if *caFile != "" {
		config, err := tlsConfig()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
	}
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	return grpc.NewClient(*target, options...)
}

func tlsConfig() (*tls.Config, error) {
	pem, err := os.ReadFile(*caFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if *certFile != "" {
		pair, err := tls.LoadX509KeyPair(*certFile, *keyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
