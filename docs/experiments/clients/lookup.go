// Prints what Go's own resolver gives for a name, in its order, once for each time that is asked for.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

func main() {
	count, _ := strconv.Atoi(os.Args[2])
	resolver := &net.Resolver{PreferGo: true}
	for ; count > 0; count-- {
		list, _ := resolver.LookupHost(context.Background(), os.Args[1])
		fmt.Println(strings.Join(list, " "))
	}
}
