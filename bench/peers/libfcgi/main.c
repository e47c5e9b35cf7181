/* Hello on the C libfcgi, 64 threads. It serves one request at a time on a connection, and a thread per connection. */
#include <arpa/inet.h>
#include <fcgiapp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

static int listener;

static void *serve(void *unused) {
    FCGX_Request request;
    (void)unused;
    FCGX_InitRequest(&request, listener, 0);
    while (FCGX_Accept_r(&request) == 0)
        FCGX_FPrintF(request.out, "Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n");
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t threads[64];
    if (count != 2) {
        fprintf(stderr, "usage: peer-libfcgi :PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    FCGX_Init();
    listener = FCGX_OpenSocket(arguments[1], 1024);
    for (int i = 0; i < 64; i++)
        pthread_create(&threads[i], NULL, serve, NULL);
    for (int i = 0; i < 64; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
