module afcgi/interop/peer

go 1.19
