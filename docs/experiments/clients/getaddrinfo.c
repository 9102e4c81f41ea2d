/* Prints what getaddrinfo gives for a name, in its order, once for each time that is asked for. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    for (int n = atoi(argv[2]); n > 0; n--) {
        struct addrinfo hints, *list, *at;
        memset(&hints, 0, sizeof hints);
        hints.ai_family = AF_INET;
        hints.ai_socktype = SOCK_STREAM;
        if (getaddrinfo(argv[1], "80", &hints, &list)) {
            puts("");
            continue;
        }
        for (at = list; at; at = at->ai_next) {
            char text[INET_ADDRSTRLEN];
            inet_ntop(AF_INET, &((struct sockaddr_in *)at->ai_addr)->sin_addr, text, sizeof text);
            printf("%s%s", at == list ? "" : " ", text);
        }
        puts("");
        freeaddrinfo(list);
    }
    return 0;
}
