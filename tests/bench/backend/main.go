// A trivial native inference backend for benchmarks: answers every ModelInfer with the name and the id
// of its request and the length of its raw bytes, and decodes nothing else.
//
// An id `sleep-N` is answered after N milliseconds. A caller's metadata `x-bench` comes back as a trailer.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	echoed          = "x-bench"
	maxMessageBytes = 64 << 20
)

type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *(v.(*[]byte)), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*(v.(*[]byte)) = append([]byte(nil), data...)
	return nil
}

// fields are the name, the id and the raw contents of a request: 1, 3 and 7.
func fields(message []byte) (name, id, raw []byte) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		if kind == protowire.BytesType {
			value, m := protowire.ConsumeBytes(message)
			if m < 0 {
				return
			}
			switch number {
			case 1:
				name = value
			case 3:
				id = value
			case 7:
				raw = value
			}
		}
		m := protowire.ConsumeFieldValue(number, kind, message)
		if m < 0 {
			return
		}
		message = message[m:]
	}
	return
}

func answer(name, id, raw []byte) []byte {
	out := protowire.AppendTag(nil, 1, protowire.BytesType)
	out = protowire.AppendBytes(out, name)
	if len(id) > 0 {
		out = protowire.AppendTag(out, 3, protowire.BytesType)
		out = protowire.AppendBytes(out, id)
	}
	// The length of what came, so that a caller can check that all of it did.
	size := make([]byte, 8)
	binary.LittleEndian.PutUint64(size, uint64(len(raw)))
	out = protowire.AppendTag(out, 6, protowire.BytesType)
	return protowire.AppendBytes(out, size)
}

func pause(id []byte) {
	if text, found := strings.CutPrefix(string(id), "sleep-"); found {
		if ms, err := strconv.Atoi(text); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
	}
}

func handle(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	name, id, raw := fields(request)
	pause(id)
	if values := metadata.ValueFromIncomingContext(stream.Context(), echoed); len(values) > 0 {
		stream.SetTrailer(metadata.Pairs(echoed, values[0]))
	}
	response := answer(name, id, raw)
	return stream.SendMsg(&response)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	flag.Parse()
	encoding.RegisterCodec(rawCodec{})
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fail(err)
	}
	fmt.Println(listener.Addr())
	server := grpc.NewServer(
		grpc.UnknownServiceHandler(handle),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(1000),
	)
	if err := server.Serve(listener); err != nil {
		fail(err)
	}
}
