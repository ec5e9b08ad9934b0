package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// message needs every kind of percent-encoding.
const message = "a % b\tc\r\nd \x00\x7f é 中 \U0001f600 %41 ~ end"

var cases = map[string]func(context.Context, *client) []string{
	"unary":         unary,
	"sizes":         sizes,
	"metadata":      metadataBothWays,
	"statuses":      statuses,
	"bug":           one("Bug", ""),
	"unimplemented": one("Nothing", ""),
	"toolarge":      tooLarge,
	"gzip":          gzipped,
	"deadline":      deadline,
	"cancel":        cancelled,
	"mirror":        mirror,
	"sum":           sum,
	"count":         count,
	"early":         early,
	"broken":        broken,
	"interleaved":   interleaved,
	"parallel":      parallel,
	"upload":        upload,
	"abandon":       abandon,
	"peer":          one("Peer", ""),
	"drain":         drain,
}

var defaults = []string{
	"unary", "sizes", "metadata", "statuses", "bug", "unimplemented", "toolarge", "gzip", "deadline",
	"cancel", "mirror", "sum", "count", "early", "broken", "interleaved", "parallel",
	"upload", "abandon",
}

type client struct{ connection *grpc.ClientConn }

func (c *client) call(ctx context.Context, method string, body []byte, options ...grpc.CallOption) ([]byte, error) {
	var answer []byte
	err := c.connection.Invoke(ctx, service+method, &body, &answer, options...)
	return answer, err
}

func (c *client) stream(ctx context.Context, method string) (grpc.ClientStream, error) {
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return c.connection.NewStream(ctx, both, service+method)
}

// seen waits until the server has counted so many of something, at most until the case's end.
func (c *client) seen(ctx context.Context, what string, wanted string) string {
	for {
		answer, err := c.call(ctx, "Seen", []byte(what))
		if err != nil {
			return text(err)
		}
		if string(answer) == wanted {
			return wanted
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func text(err error) string {
	if err == nil || err == io.EOF {
		return "OK"
	}
	found := status.Convert(err)
	switch found.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return found.Code().String() // grpc-go's own words, or the network's
	}
	return fmt.Sprintf("%s %q", found.Code(), found.Message())
}

func short(body []byte) string {
	if len(body) > 100 {
		return fmt.Sprintf("%d bytes, sum %d", len(body), checksum(body))
	}
	return fmt.Sprintf("%q", body)
}

func checksum(body []byte) (sum uint32) {
	for _, octet := range body {
		sum = sum*31 + uint32(octet)
	}
	return
}

// pattern is what the server's Size answers.
func pattern(size int) []byte {
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i)
	}
	return body
}

func one(method, body string) func(context.Context, *client) []string {
	return func(ctx context.Context, c *client) []string {
		answer, err := c.call(ctx, method, []byte(body))
		return []string{short(answer) + " " + text(err)}
	}
}

func unary(ctx context.Context, c *client) (lines []string) {
	for _, method := range []string{"Echo", "Soon", "Later"} {
		for _, body := range [][]byte{nil, []byte("x\x00\xff"), pattern(100_000)} {
			var header, trailer metadata.MD
			answer, err := c.call(ctx, method, body, grpc.Header(&header), grpc.Trailer(&trailer))
			lines = append(lines, fmt.Sprintf("%s %s %s %v", method, short(answer), text(err), header["content-type"]))
		}
	}
	return
}

func sizes(ctx context.Context, c *client) (lines []string) {
	for _, size := range []int{0, 1, 16379, 16380, 65530, 65535, 65536, 1 << 20, 10 << 20} {
		for _, method := range []string{"Size", "Fresh"} {
			answer, err := c.call(ctx, method, fmt.Append(nil, size))
			same := bytes.Equal(answer, pattern(size))
			lines = append(lines, fmt.Sprintf("%s %d %v %s", method, len(answer), same, text(err)))
		}
	}
	return
}

func metadataBothWays(ctx context.Context, c *client) []string {
	ctx = metadata.AppendToOutgoingContext(ctx,
		"x-a", "1", "x-a", "2", "X-Upper", "kept", "x-empty", "", "x-space", "a b", "x-tilde", "~!*",
		"x-one-bin", "\x00\x01\xfe\xff", "x-one-bin", "", "x-comma", "a,b", "x-long", strings.Repeat("v", 3000),
		"x-two-bin", "abcde")
	var trailer metadata.MD
	answer, err := c.call(ctx, "Metadata", nil, grpc.Trailer(&trailer))
	lines := []string{string(answer) + " " + text(err)}
	for _, key := range []string{
		"x-a", "x-upper", "x-empty", "x-space", "x-tilde", "x-one-bin", "x-comma", "x-long", "x-two-bin",
	} {
		lines = append(lines, fmt.Sprintf("%s %q", key, trailer[key]))
	}
	return lines
}

func statuses(ctx context.Context, c *client) (lines []string) {
	for code := 1; code <= 16; code++ {
		var header, trailer metadata.MD
		_, err := c.call(ctx, "Status", fmt.Appendf(nil, "%d %s", code, message), grpc.Header(&header), grpc.Trailer(&trailer))
		found := status.Convert(err)
		lines = append(lines, fmt.Sprintf("%s %q %q %q",
			found.Code(), found.Message(), trailer["x-reason"], trailer["x-detail-bin"]))
	}
	_, err := c.call(ctx, "Status", []byte("5 "))
	return append(lines, "no message: "+text(err))
}

func tooLarge(ctx context.Context, c *client) []string {
	// The words are the transport's own.
	_, err := c.call(ctx, "Echo", pattern(3<<20))
	return []string{status.Code(err).String()}
}

func gzipped(ctx context.Context, c *client) (lines []string) {
	for _, size := range []int{0, 10, 100_000, 1 << 20} {
		answer, err := c.call(ctx, "Echo", pattern(size), grpc.UseCompressor(gzip.Name))
		lines = append(lines, fmt.Sprintf("%v %s", bytes.Equal(answer, pattern(size)), text(err)))
	}
	// A small message that becomes too large.
	_, err := c.call(ctx, "Echo", make([]byte, 50<<20), grpc.UseCompressor(gzip.Name))
	return append(lines, status.Code(err).String())
}

func deadline(ctx context.Context, c *client) (lines []string) {
	for _, method := range []string{"Hang", "Wait"} {
		brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		stream, err := c.stream(brief, method)
		if err != nil {
			return append(lines, text(err))
		}
		body := []byte(method + "-deadline")
		lines = append(lines, text(stream.SendMsg(&body)), text(stream.CloseSend()))
		var answer []byte
		for err == nil {
			err = stream.RecvMsg(&answer)
		}
		lines = append(lines, text(err))
		for _, what := range []string{"with deadline", "cancelled", "done"} {
			lines = append(lines, what+" "+c.seen(ctx, method+"-deadline "+what, "1"))
		}
	}
	return
}

func cancelled(ctx context.Context, c *client) []string {
	brief, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan error)
	go func() {
		_, err := c.call(brief, "Hang", []byte("unary-cancel"))
		result <- err
	}()
	begun := c.seen(ctx, "unary-cancel begun", "1")
	cancel()
	err := <-result
	lines := []string{
		"begun " + begun, text(err),
		"cancelled " + c.seen(ctx, "unary-cancel cancelled", "1"),
		"done " + c.seen(ctx, "unary-cancel done", "1"),
	}
	brief, cancelStream := context.WithCancel(ctx)
	defer cancelStream()
	stream, err := c.stream(brief, "Wait")
	if err != nil {
		return append(lines, text(err))
	}
	body := []byte("stream-cancel")
	var answer []byte
	err = stream.SendMsg(&body)
	lines = append(lines, text(err), text(stream.RecvMsg(&answer)), string(answer))
	cancelStream()
	return append(lines, text(stream.RecvMsg(&answer)),
		"cancelled "+c.seen(ctx, "stream-cancel cancelled", "1"),
		"done "+c.seen(ctx, "stream-cancel done", "1"))
}

func mirror(ctx context.Context, c *client) (lines []string) {
	stream, err := c.stream(ctx, "Mirror")
	if err != nil {
		return []string{text(err)}
	}
	for _, size := range []int{0, 1, 70_000, 1 << 20, 3} {
		body, answer := pattern(size), []byte(nil)
		sent, received := stream.SendMsg(&body), stream.RecvMsg(&answer)
		lines = append(lines, fmt.Sprintf("%v %s %s", bytes.Equal(body, answer), text(sent), text(received)))
	}
	return append(lines, finish(stream)...)
}

// finish half-closes and tells what is left.
func finish(stream grpc.ClientStream) (lines []string) {
	lines = append(lines, "half-close "+text(stream.CloseSend()))
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			return append(lines, fmt.Sprintf("%s %q", text(err), stream.Trailer()["x-reason"]))
		}
		lines = append(lines, short(answer))
	}
}

func sum(ctx context.Context, c *client) (lines []string) {
	for _, messages := range []int{0, 1, 5000} {
		stream, err := c.stream(ctx, "Sum")
		if err != nil {
			return append(lines, text(err))
		}
		for number := range messages {
			body := pattern(number % 500)
			if err := stream.SendMsg(&body); err != nil {
				return append(lines, text(err))
			}
		}
		lines = append(lines, finish(stream)...)
	}
	return
}

func count(ctx context.Context, c *client) (lines []string) {
	for _, wanted := range []string{"0 0", "3 10", "20000 100", "100 100000"} {
		stream, err := c.stream(ctx, "Count")
		if err != nil {
			return append(lines, text(err))
		}
		body := []byte(wanted)
		_ = stream.SendMsg(&body)
		_ = stream.CloseSend()
		messages, total, ordered := 0, 0, true
		for {
			var answer []byte
			if err = stream.RecvMsg(&answer); err != nil {
				break
			}
			ordered = ordered && bytes.HasPrefix(answer, fmt.Appendf(nil, "%d ", messages))
			messages++
			total += len(answer)
		}
		lines = append(lines, fmt.Sprintf("%d messages, %d bytes, in order %v, %s", messages, total, ordered, text(err)))
	}
	return
}

// early: the server ends while the client would still send.
func early(ctx context.Context, c *client) (lines []string) {
	stream, err := c.stream(ctx, "Early")
	if err != nil {
		return []string{text(err)}
	}
	body, answer := []byte("x"), []byte(nil)
	lines = append(lines, text(stream.SendMsg(&body)), text(stream.RecvMsg(&answer)), string(answer))
	lines = append(lines, text(stream.RecvMsg(&answer)))
	for err == nil {
		err = stream.SendMsg(&body)
	}
	return append(lines, text(err))
}

func broken(ctx context.Context, c *client) []string {
	stream, err := c.stream(ctx, "Break")
	if err != nil {
		return []string{text(err)}
	}
	body := []byte("x")
	return append([]string{text(stream.SendMsg(&body))}, finish(stream)...)
}

// interleaved: a stream that nobody reads does not hold up calls on the same connection.
func interleaved(ctx context.Context, c *client) []string {
	brief, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.stream(brief, "Count")
	if err != nil {
		return []string{text(err)}
	}
	body := []byte("1000 100000")
	if err := stream.SendMsg(&body); err != nil {
		return []string{text(err)}
	}
	answer, err := c.call(ctx, "Size", []byte("100000"))
	lines := []string{short(answer) + " " + text(err)}
	total := 0
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			return append(lines, fmt.Sprintf("%d bytes, %s", total, text(err)))
		}
		total += len(answer)
	}
}

func parallel(ctx context.Context, c *client) []string {
	var group sync.WaitGroup
	var lock sync.Mutex
	outcomes := map[string]int{}
	for worker := range 64 {
		group.Go(func() {
			for number := range 30 {
				method := []string{"Echo", "Soon", "Later"}[number%3]
				body := pattern(worker * number % 2000)
				answer, err := c.call(ctx, method, body)
				lock.Lock()
				outcomes[fmt.Sprintf("%v %s", bytes.Equal(answer, body), text(err))]++
				lock.Unlock()
			}
		})
	}
	group.Wait()
	return []string{fmt.Sprint(outcomes)}
}

// upload: many large messages, all of them read.
func upload(ctx context.Context, c *client) []string {
	stream, err := c.stream(ctx, "Sum")
	if err != nil {
		return []string{text(err)}
	}
	body := pattern(2_000_000)
	for range 10 {
		if err := stream.SendMsg(&body); err != nil {
			return []string{text(err)}
		}
	}
	return finish(stream)
}

// abandon: a handler that reads nothing holds up its own stream only.
func abandon(ctx context.Context, c *client) []string {
	brief, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	stream, err := c.stream(brief, "Ignore")
	if err != nil {
		return []string{text(err)}
	}
	body := []byte("ignore")
	var answer []byte
	lines := []string{text(stream.SendMsg(&body)), text(stream.RecvMsg(&answer))}
	body = pattern(1_000_000)
	for err == nil {
		err = stream.SendMsg(&body)
	}
	answer, callErr := c.call(ctx, "Echo", pattern(100_000))
	return append(lines, text(stream.RecvMsg(&answer)), text(callErr))
}

// drain: calls under way when the server is told to end. It says so on a line of its own, and
// goes on when it reads a line.
func drain(ctx context.Context, c *client) (lines []string) {
	var streams []grpc.ClientStream
	for range 10 {
		stream, err := c.stream(ctx, "Mirror")
		if err != nil {
			return []string{text(err)}
		}
		body, answer := []byte("before"), []byte(nil)
		lines = append(lines, text(stream.SendMsg(&body)), text(stream.RecvMsg(&answer)))
		streams = append(streams, stream)
	}
	fmt.Println("under way")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	var err error
	for err == nil { // until the server takes no new calls
		_, err = c.call(ctx, "Echo", nil)
	}
	lines = append(lines, "new call: "+text(err))
	for _, stream := range streams {
		body, answer := []byte("during"), []byte(nil)
		lines = append(lines, text(stream.SendMsg(&body)), text(stream.RecvMsg(&answer)), string(answer))
		lines = append(lines, finish(stream)...)
	}
	return
}
