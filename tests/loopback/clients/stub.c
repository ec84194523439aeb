/* Asks the C library's stub resolver for COUNT names and prints what it says: one line a name.
 *
 *   stub COUNT FORMAT        FORMAT holds one %d, the number of the name
 *
 * Line: name, error code of getaddrinfo (0 is success), milliseconds it took, addresses as given, without repeats.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static double now_in_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    for (int number = 0; number < atoi(argv[1]); number++) {
        char name[300];
        snprintf(name, sizeof name, argv[2], number);
        struct addrinfo wish = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
        struct addrinfo *found = NULL;
        double start = now_in_ms();
        int error = getaddrinfo(name, NULL, &wish, &found);
        printf("%s %d %.0f", name, error, now_in_ms() - start);
        for (struct addrinfo *one = error ? NULL : found; one; one = one->ai_next) {
            char text[INET6_ADDRSTRLEN] = "?";
            const void *address = one->ai_family == AF_INET6
                ? (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr
                : (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr;
            inet_ntop(one->ai_family, address, text, sizeof text);
            printf(" %s", text);
        }
        putchar('\n');
        if (!error) {
            freeaddrinfo(found);
        }
    }
    return 0;
}
